"""The whole configuration of one run: checked types, no unknown names, values by dotted names."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from nysact.experiments.baselines.registry import find
from nysact.experiments.config.assignments import assign, parsed
from nysact.experiments.config.data import FolderData, ImageData, OwnData, Section, TextData
from nysact.experiments.config.errors import in_words
from nysact.experiments.errors import ExperimentError
from nysact.experiments.models import find_model

Value = bool | int | float | str
# The name of a model or of data that a caller hands over instead of naming it.
OWN = "own"
# Settings that came after runs had been stored, by their dotted names, each with the value that
# stands for what was done before, written out: with it a run keeps its name, and once the default
# becomes another one it does not.
ADDED: Mapping[str, Value | None] = {
    "data.loader": "device",
    "data.augmentation": None,
    "data.interpolation": "bilinear",
    "data.random_erasing": 0.0,
    "data.erase_with": "zero",
    "data.mixup": 0.0,
    "data.cutmix": 0.0,
    "data.repeats": 1,
    "data.validation_size": 0,
}


class ModelConfig(Section):
    """A model by its name.

    Args:
        name: A key of :data:`~nysact.experiments.models.MODELS`, or ``"own"``.
        options: Its options; those that are not given are its defaults.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return completed(values, lambda name, given: find_model(name).options(given))


class OptimizerConfig(Section):
    """An optimizer by its name.

    Args:
        name: A key of :data:`~nysact.experiments.baselines.BASELINES`.
        options: Its settings; those that are not given are its defaults.
        decay_vectors: Whether weight decay acts on norms, biases and other vectors too.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    decay_vectors: bool = True

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return completed(values, lambda name, given: find(name).settings(given))


class Schedule(Section):
    """How the learning rate changes.

    Args:
        name: ``"cosine"``: down to 0 along half a cosine; ``"constant"``.
        every: Whether it falls after each epoch or each step; it always rises each step.
        warmup_epochs: Epochs in which it rises linearly to its value at first.
        warmup_steps: The same in steps.
    """

    name: Literal["cosine", "constant"] = "cosine"
    every: Literal["epoch", "step"] = "epoch"
    warmup_epochs: NonNegativeInt = 0
    warmup_steps: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("give warmup_epochs or warmup_steps, not both")
        return self


class Record(Section):
    """What is recorded beside losses and accuracies.

    Args:
        covariance_norms: Whether each evaluation records the Frobenius norm of the covariance of
            each layer's inputs.
        covariances: Layers whose covariance, and approximations of it, the end of the run records.
        rank: Rank of those approximations.
    """

    covariance_norms: bool = False
    covariances: list[str] = Field(default_factory=list)
    rank: PositiveInt = 10


class Config(Section):
    """All that a run's result depends on.

    Args:
        recipe: Name of the recipe that it belongs to.
        row: Label of the optimizer in tables.
        column: Label of what is trained.
        sweep: Dotted names of what a figure varies, with this run's values.
        seed: Seed of the weights, of the order and augmentation of samples, and of optimizers
            that draw.
        model: The model.
        data: The data.
        optimizer: The optimizer.
        schedule: How the learning rate changes.
        batch_size: Samples a step, over all processes.
        epochs: Passes over the training set; either this or ``steps`` is given.
        steps: Steps in all.
        evaluation_interval: Steps between evaluations, ``None`` for one after each epoch; there is
            always one at the end.
        label_smoothing: Share of the training targets that is spread evenly over all classes.
        precision: Of the arithmetic; the parameters are always fp32. ``"tf32"`` lets a GPU round
            the inputs of products and convolutions, which nothing else does.
        threads: Threads on a CPU, ``None`` for torch's default; results depend on it.
        record: What is recorded besides.
    """

    recipe: str
    row: str
    column: str
    sweep: dict[str, Value] = Field(default_factory=dict)
    seed: NonNegativeInt = 0
    model: ModelConfig
    data: ImageData | FolderData | TextData | OwnData = Field(discriminator="name")
    optimizer: OptimizerConfig
    schedule: Schedule = Schedule()
    batch_size: PositiveInt = 128
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    evaluation_interval: PositiveInt | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    threads: PositiveInt | None = None
    record: Record = Record()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give epochs or steps, one of the two")
        return self

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> "Config":
        """Make a configuration of nested values.

        Args:
            values: The values, such as a file holds them.

        Returns:
            The configuration.

        Raises:
            ExperimentError: If a name is unknown, or a value is missing or of another type; the
                message names it, what was expected, and the nearest right name.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ExperimentError(in_words(error, cls)) from error

    def override(self, assignments: Iterable[str]) -> "Config":
        """Change values by their dotted names.

        Args:
            assignments: Such as ``"optimizer.options.lr=0.3"``; values are written as in TOML, but
                text needs no quotes and ``none`` stands for no value. ``steps`` takes the place
                of ``epochs``, and the other way round; another optimizer or model begins with its
                own defaults.

        Returns:
            The changed configuration.

        Raises:
            ExperimentError: If a name is unknown or a value of another type.
        """
        values = self.model_dump()
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise ExperimentError(
                    f"{assignment!r}: expected NAME=VALUE, such as optimizer.options.lr=0.3"
                )
            assign(values, name.strip(), parsed(text.strip()))
            values = Config.checked(values).model_dump()
        return Config.checked(values)

    def run_id(self) -> str:
        """Name the run after its labels and all its values but where its data lies.

        The values are those in force, defaults included, so that another default is another run;
        only what :data:`ADDED` lists is left out while it is as it was before it was there.

        Returns:
            A name for a folder.
        """
        values = self.model_dump()
        for name, before in ADDED.items():
            leave_out(values, name, before)
        if self.data.name != "text":
            for place in ("folder", "workers"):
                values["data"].pop(place, None)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        varied = [f"{name.rpartition('.')[2]}-{value}" for name, value in self.sweep.items()]
        labels = [slug(label) for label in (self.row, self.column, *varied)]
        return "_".join([*labels, f"seed-{self.seed}", digest[:8]])


def leave_out(values: dict[str, Any], name: str, value: Value | None) -> None:
    """Remove the setting of a dotted name, if there is one and it has a value."""
    *path, last = name.split(".")
    section: Any = values
    for part in path:
        section = section.get(part, {})
    if last in section and section[last] == value:
        del section[last]


def slug(label: str) -> str:
    """Turn a label into part of a file's name."""
    kept = "".join(char if char.isalnum() or char == "." else " " for char in label.lower())
    return "-".join(kept.split())


def completed(values: Any, complete: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """Complete the options of a model or optimizer; what is of a wrong type is left as it is.

    Args:
        values: The section.
        complete: Adds the defaults of a name to its options.

    Returns:
        The section with all options, in the types that JSON has.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        return values
    given = values.get("options", {})
    if values["name"] == OWN or not isinstance(given, Mapping):
        return values
    options = complete(values["name"], given)
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return {**values, "options": lists}
