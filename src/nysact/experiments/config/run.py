"""The whole configuration of one run: checked types, no unknown names, values by dotted names."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from nysact.experiments.baselines.registry import find
from nysact.experiments.config.assignments import assign, parse_assignment, parse_value
from nysact.experiments.config.data import (
    ArrayData,
    FolderData,
    ImageData,
    OwnData,
    Section,
    TextData,
)
from nysact.experiments.config.errors import describe_error
from nysact.experiments.errors import ExperimentError
from nysact.experiments.formatting import slug
from nysact.experiments.models import find_model

Value = bool | int | float | str
# The name of a model, data or optimizer that a caller passes instead of naming it.
OWN = "own"


class ModelConfig(Section):
    """A model by its name; options that are not given are its defaults."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return completed(values, lambda name, given: find_model(name).options(given))


class OptimizerConfig(Section):
    """An optimizer by its name; options that are not given are its defaults."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    decay_vectors: bool = True  # whether weight decay acts on norms, biases and other vectors too

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return completed(values, lambda name, given: find(name).settings(given))


class Schedule(Section):
    """How the learning rate changes: a linear warm-up each step, then half a cosine or constant."""

    name: Literal["cosine", "constant"] = "cosine"
    every: Literal["epoch", "step"] = "epoch"  # when it falls
    warmup_epochs: NonNegativeInt = 0
    warmup_steps: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("give warmup_epochs or warmup_steps, not both")
        return self

    def factor(self, step: int, steps: int, steps_an_epoch: int) -> float:
        """Of the learning rate: 1 at the end of the warm-up, then a cosine down to 0."""
        warmup = self.warmup_steps or self.warmup_epochs * steps_an_epoch
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.name == "constant":
            return 1.0
        grain = steps_an_epoch if self.every == "epoch" else 1
        done = (step - warmup) // grain * grain
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done / max(1, steps - warmup))))


class Record(Section):
    """What is recorded beside losses and accuracies."""

    covariance_norms: bool = False  # of each layer's inputs, at each evaluation
    # Layers whose covariance, and approximations of it, are recorded at the end.
    covariances: list[str] = Field(default_factory=list)
    rank: PositiveInt = 10  # of those approximations


class Config(Section):
    """All that the result of a run depends on."""

    recipe: str
    row: str  # the label of the optimizer in tables
    column: str  # the label of what is trained
    sweep: dict[str, Value] = Field(default_factory=dict)  # dotted name to the varied value
    # Of the weights, of the order and augmentation of samples, and of optimizers that draw.
    seed: NonNegativeInt = 0
    model: ModelConfig
    data: ImageData | FolderData | ArrayData | TextData | OwnData = Field(discriminator="name")
    optimizer: OptimizerConfig
    schedule: Schedule = Schedule()
    batch_size: PositiveInt = 128  # samples a step, over all processes
    epochs: PositiveInt | None = None  # this or steps
    steps: PositiveInt | None = None
    evaluation_interval: PositiveInt | None = None  # in steps, None for once an epoch
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Of the arithmetic; parameters are always fp32. Only "tf32" lets a GPU round fp32 inputs.
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    threads: PositiveInt | None = None  # on a CPU, where results depend on it
    record: Record = Record()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give epochs or steps, one of the two")
        return self

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> "Config":
        """Make a configuration of nested values, or say which name or value is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ExperimentError(describe_error(error, cls)) from error

    def override(self, assignments: Iterable[str]) -> "Config":
        """Apply assignments such as ``"optimizer.options.lr=0.3"``."""
        config = self
        for text in assignments:
            name, value = parse_assignment(text, "--set", "optimizer.options.lr=0.3")
            config = Config.checked(assign(config.model_dump(), name, parse_value(value)))
        return config

    def run_id(self) -> str:
        """Name the run after its labels and a hash of its settings, except where its data lies."""
        # Without defaults, so that a setting that is added later renames no stored run.
        values = self.model_dump(exclude_defaults=True)
        if self.data.name != "text":
            for place in ("folder", "workers"):
                values["data"].pop(place, None)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        varied = [f"{name.rpartition('.')[2]}-{value}" for name, value in self.sweep.items()]
        labels = [slug(label) for label in (self.row, self.column, *varied)]
        return "_".join([*labels, f"seed-{self.seed}", digest[:8]])


def completed(values: Any, complete: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """Add the defaults to a section's options; what is of a wrong type is left to the check."""
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        return values
    given = values.get("options", {})
    if values["name"] == OWN or not isinstance(given, Mapping):
        return values
    options = complete(values["name"], given)
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return {**values, "options": lists}
