"""The part of a configuration that says what the data is: a section for each kind of data."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a configuration: checked types, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augmented(Section):
    """What all image data has in common."""

    # "trivial-augment" of torchvision, or a policy of timm such as "rand-m7-mstd0.5-inc1".
    augmentation: str | None = None
    # How pictures are resized, and how a policy rotates and shears them.
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    random_erasing: Share = 0.0  # probability that a part of a training image is erased
    erase_with: Literal["zero", "noise"] = "zero"
    mixup: NonNegativeFloat = 0.0  # alpha, 0 for none
    cutmix: NonNegativeFloat = 0.0  # likewise; with mixup, a batch gets one of the two
    # How often an epoch shows each of its pictures; an epoch of as many samples has fewer pictures.
    repeats: PositiveInt = 1
    # Training images held out and evaluated beside the test images; the same ones for every seed.
    validation_size: NonNegativeInt = 0


class ImageData(Augmented):
    """Small images, all kept in memory."""

    name: Literal["digits", "fashion-mnist", "cifar10", "cifar100"]
    folder: str | None = None  # None: the usual places, else a download
    train_size: PositiveInt | None = None  # a random part, None for all
    test_size: PositiveInt | None = None
    flip: bool = False  # mirror training images at random
    # What the model predicts: classes, or the pixels of the images themselves.
    targets: Literal["labels", "images"] = "labels"
    crop: NonNegativeInt = 0  # pixels of black on each side, for random crops of training images
    # "device": augmented on the device, a batch at a time; "standard": one by one, by workers.
    loader: Literal["device", "standard"] = "device"
    workers: NonNegativeInt = 0  # processes that augment training images, 0 for the trainer itself


class FolderData(Augmented):
    """ImageNet: a folder of pictures for each class, read as they are needed."""

    name: Literal["imagenet"]
    folder: str | None = None  # has "train" and "val"
    train_resolution: PositiveInt = 224
    test_resolution: PositiveInt = 224  # cropped out of the centre
    test_resize: PositiveInt = 256  # shorter side of the picture before that crop
    flip: bool = True
    workers: NonNegativeInt = 8


class ArrayData(Section):
    """Numbers that a package or a formula gives, kept in memory, whose targets are real."""

    name: Literal["flights", "cloning", "poisson"]
    train_size: PositiveInt | None = None  # a random part, None for all
    test_size: PositiveInt | None = None
    validation_size: NonNegativeInt = 0  # training samples held out; of "poisson", other points


class TextData(Section):
    """Bytes of text files, some of which are held out whole."""

    name: Literal["text"]
    folder: str | None = None  # a UTF-8 file or a folder, None for Python's standard library
    suffixes: list[str] = [".py", ".txt", ".md", ".rst"]
    context: PositiveInt = 128  # bytes that the model reads at a time
    held_out: Annotated[int, Field(ge=2)] = 10  # one file in so many is held out for testing
    test_windows: PositiveInt = 512
    # Windows of further files for validation, one file in held_out of the rest; 0 for none.
    validation_size: NonNegativeInt = 0


class OwnData(Section):
    """Data sets that a caller passes to ``compare``, with what is known of them."""

    name: Literal["own"]
    train_size: NonNegativeInt = 0
    test_size: NonNegativeInt = 0
    validation_size: NonNegativeInt = 0  # of the training samples, held out
    loss: str = ""
    workers: NonNegativeInt = 0


KINDS: Mapping[str, type[Section]] = {
    name: kind
    for kind in (ImageData, FolderData, ArrayData, TextData, OwnData)
    for name in get_args(kind.model_fields["name"].annotation)
}
