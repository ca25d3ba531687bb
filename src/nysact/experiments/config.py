"""The whole configuration of one run: checked types, no unknown names, values by dotted names."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from nysact.experiments.baselines.registry import find
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.models import find_model

Value = bool | int | float | str
Share = Annotated[float, Field(ge=0, le=1)]
# The name of a model or of data that a caller hands over instead of naming it.
OWN = "own"


class Section(BaseModel):
    """A part of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelConfig(Section):
    """A model by its name.

    Args:
        name: A key of :data:`~nysact.experiments.models.MODELS`, or ``"own"``.
        options: Its options; those that are not given are its defaults.
    """

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return completed(values, lambda name, given: find_model(name).options(given))


class ImageData(Section):
    """Images that are kept on the device whole, with augmentation a batch at a time.

    Args:
        name: Which images.
        folder: Where their files are, ``None`` for the usual places and else a download.
        train_size: Training images used, a random part; ``None`` for all.
        test_size: Test images used, likewise.
        flip: Whether training images are mirrored left to right at random.
        crop: Pixels of black on each side, out of which training images are cropped at random.
    """

    name: Literal["digits", "fashion-mnist", "cifar10", "cifar100"]
    folder: str | None = None
    train_size: PositiveInt | None = None
    test_size: PositiveInt | None = None
    flip: bool = False
    crop: NonNegativeInt = 0


class FolderData(Section):
    """ImageNet: a folder of pictures for each class, read as they are needed.

    Args:
        name: ``"imagenet"``.
        folder: The folder with ``train`` and ``val``.
        train_resolution: Side of the training images, in pixels.
        test_resolution: Side of the test images, cropped out of the centre.
        test_resize: Shorter side of the picture before that crop.
        flip: Whether training images are mirrored left to right at random.
        augmentation: A policy: ``"trivial-augment"`` of torchvision, one of timm such as
            ``"rand-m7-mstd0.5-inc1"``, or ``None``.
        interpolation: How pictures are resized.
        random_erasing: Probability that a part of a training image is erased.
        erase_with: What it is erased with.
        mixup: Parameter alpha of mixup, 0 for none.
        cutmix: Parameter alpha of CutMix, 0 for none; with mixup, a batch gets one of the two.
        repeats: How often an epoch shows each of its pictures, in differing augmentations; an
            epoch of as many samples then has only so many fewer pictures.
        workers: Processes that read pictures, 0 for none but the trainer.
    """

    name: Literal["imagenet"]
    folder: str | None = None
    train_resolution: PositiveInt = 224
    test_resolution: PositiveInt = 224
    test_resize: PositiveInt = 256
    flip: bool = True
    augmentation: str | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    random_erasing: Share = 0.0
    erase_with: Literal["zero", "noise"] = "zero"
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    repeats: PositiveInt = 1
    workers: NonNegativeInt = 8


class TextData(Section):
    """Bytes of text files, some of which are held out whole.

    Args:
        name: ``"text"``.
        folder: A UTF-8 file or a folder of such, ``None`` for the source of Python's standard
            library.
        suffixes: Ends of the names of the files that are read in a folder.
        context: Bytes that the model reads at a time.
        held_out: One file in so many is held out.
        test_windows: Windows of the held-out files on which is tested.
    """

    name: Literal["text"]
    folder: str | None = None
    suffixes: list[str] = [".py", ".txt", ".md", ".rst"]
    context: PositiveInt = 128
    held_out: Annotated[int, Field(ge=2)] = 10
    test_windows: PositiveInt = 512


class OwnData(Section):
    """Data sets that a caller hands over.

    Args:
        name: ``"own"``.
        fingerprint: Tells one model and data set from another.
        workers: Processes that read samples, 0 for none but the trainer.
    """

    name: Literal["own"]
    fingerprint: str = ""
    workers: NonNegativeInt = 0


KINDS: Mapping[str, type[Section]] = {
    name: kind
    for kind in (ImageData, FolderData, TextData, OwnData)
    for name in get_args(kind.model_fields["name"].annotation)
}


class OptimizerConfig(Section):
    """An optimizer by its name.

    Args:
        name: A key of :data:`~nysact.experiments.baselines.BASELINES`.
        options: Its settings; those that are not given are its defaults.
        decay_vectors: Whether weight decay acts on norms, biases and other vectors too.
    """

    name: str
    options: dict[str, Any] = {}
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
    covariances: list[str] = []
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
        precision: Of the arithmetic; the parameters are always fp32.
        threads: Threads on a CPU, ``None`` for torch's default; results depend on it.
        record: What is recorded besides.
    """

    recipe: str
    row: str
    column: str
    sweep: dict[str, Value] = {}
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
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

        Returns:
            A name for a folder.
        """
        values = self.model_dump()
        if self.data.name != "text":
            for place in ("folder", "workers"):
                values["data"].pop(place, None)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        varied = [f"{name.rpartition('.')[2]}-{value}" for name, value in self.sweep.items()]
        labels = [slug(label) for label in (self.row, self.column, *varied)]
        return "_".join([*labels, f"seed-{self.seed}", digest[:8]])


def slug(label: str) -> str:
    """Turn a label into part of a file's name."""
    kept = "".join(char if char.isalnum() or char == "." else " " for char in label.lower())
    return "-".join(kept.split())


def parsed(text: str) -> Any:
    """Read a value as TOML writes it, ``none``, or plain text."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def assign(values: dict[str, Any], name: str, value: Any) -> None:
    """Set the value of a dotted name in nested dictionaries.

    Args:
        values: What is changed.
        name: The dotted name.
        value: The value.

    Raises:
        ExperimentError: If there is no such name, or it is that of a section.
    """
    *path, last = name.split(".")
    section: Any = values
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        raise ExperimentError(no_setting(name, dotted_names(values)))
    if isinstance(section[last], dict) and name != "sweep":
        inside = ", ".join(dotted_names(section[last], f"{name}."))
        raise ExperimentError(f"{name} is a section: expected one of its settings: {inside}")
    if name in ("model.name", "optimizer.name") and value != section[last]:
        section["options"] = {}
    section[last] = value
    if name == "data.name":
        keep_common(section)
    if value is not None and name in ("epochs", "steps"):
        values["steps" if name == "epochs" else "epochs"] = None


def keep_common(data: dict[str, Any]) -> None:
    """Where other data is named, leave out what only the former kind has."""
    kind = KINDS.get(data["name"])
    for name in set(data) - set(kind.model_fields if kind else data):
        del data[name]


def no_setting(name: str, names: Iterable[str]) -> str:
    """Write that a dotted name is unknown, which is the nearest, and which there are beside it."""
    names = list(names)
    last = name.rpartition(".")[2]
    # Whoever forgets the section means the setting of that name.
    same = [other for other in names if other.rpartition(".")[2] == last]
    (nearest,) = difflib.get_close_matches(name, same or names, n=1, cutoff=0.0)
    section = nearest.rpartition(".")[0]
    beside = [other for other in names if other.rpartition(".")[0] == section]
    return (
        f"there is no setting {name!r}: the nearest is {nearest!r}; expected one of "
        f"{', '.join(beside)}"
    )


def dotted_names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted names of nested dictionaries."""
    names = []
    for name, value in values.items():
        if isinstance(value, dict) and name != "sweep":
            names += dotted_names(value, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


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


def in_words(error: ValidationError, section: type[BaseModel]) -> str:
    """Write what is wrong with values.

    Args:
        error: What is wrong.
        section: What they should have been.

    Returns:
        A sentence for each with the dotted name, and the nearest right one or the value found.
    """
    return "; ".join(sentence(detail, section) for detail in error.errors(include_url=False))


def sentence(detail: Any, section: type[BaseModel]) -> str:
    """Write what is wrong with a value.

    Args:
        detail: An entry of pydantic's ``ValidationError.errors``.
        section: What the values should have been.

    Returns:
        The sentence.
    """
    name = ".".join(str(part) for part in detail["loc"] if part not in KINDS)
    if detail["type"] == "extra_forbidden":
        return f"there is no setting {unknown(name, names_beside(detail['loc'], section))}"
    if detail["type"] == "union_tag_invalid":
        return f"{name}.name is {unknown(detail['ctx']['tag'], KINDS)}"
    if detail["type"] in ("missing", "union_tag_not_found"):
        return f"{name}: it is missing"
    cause = detail.get("ctx", {}).get("error")
    message = str(cause) if cause else detail["msg"].replace("Input should be", "expected")
    if isinstance(detail["input"], dict):
        return f"{name}: {message}" if name else message
    return f"{name}={detail['input']!r}: {message}"


def names_beside(location: Sequence[Any], section: Any) -> list[str]:
    """List the dotted names that are right in a section.

    Args:
        location: A wrong one in pydantic's form, where the kind of data is a part of its own.
        section: The model that holds the section.

    Returns:
        The names.
    """
    for part in location[:-1]:
        if part in KINDS:
            section = KINDS[part]
        elif part in getattr(section, "model_fields", ()):
            section = section.model_fields[part].annotation
    prefix = "".join(f"{part}." for part in location[:-1] if part not in KINDS)
    return [f"{prefix}{name}" for name in getattr(section, "model_fields", ())]
