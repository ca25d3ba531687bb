"""The part of a configuration that says what the data is: a section for each kind of data."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augmented(Section):
    """What all data of pictures has in common.

    Args:
        augmentation: A policy: ``"trivial-augment"`` of torchvision, one of timm such as
            ``"rand-m7-mstd0.5-inc1"``, or ``None``.
        interpolation: How pictures are resized, and rotated and sheared by a policy.
        random_erasing: Probability that a part of a training image is erased.
        erase_with: What it is erased with.
        mixup: Parameter alpha of mixup, 0 for none.
        cutmix: Parameter alpha of CutMix, 0 for none; with mixup, a batch gets one of the two.
        repeats: How often an epoch shows each of its pictures, in differing augmentations; an
            epoch of as many samples then has only so many fewer pictures.
        validation_size: Training images that are held out and evaluated beside the test images;
            always the same ones.
    """

    augmentation: str | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    random_erasing: Share = 0.0
    erase_with: Literal["zero", "noise"] = "zero"
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    repeats: PositiveInt = 1
    validation_size: NonNegativeInt = 0


class ImageData(Augmented):
    """Small images, all of which are kept in memory.

    Args:
        name: Which images.
        folder: Where their files are, ``None`` for the usual places and else a download.
        train_size: Training images used, a random part; ``None`` for all.
        test_size: Test images used, likewise.
        flip: Whether training images are mirrored left to right at random.
        crop: Pixels of black on each side, out of which training images are cropped at random.
        loader: ``"device"``: training images are kept on the device, and augmented a batch at a
            time; ``"standard"``: they are augmented one by one, by ``workers`` processes.
        workers: Processes that augment training images, 0 for none but the trainer.
    """

    name: Literal["digits", "fashion-mnist", "cifar10", "cifar100"]
    folder: str | None = None
    train_size: PositiveInt | None = None
    test_size: PositiveInt | None = None
    flip: bool = False
    crop: NonNegativeInt = 0
    loader: Literal["device", "standard"] = "device"
    workers: NonNegativeInt = 0


class FolderData(Augmented):
    """ImageNet: a folder of pictures for each class, read as they are needed.

    Args:
        name: ``"imagenet"``.
        folder: The folder with ``train`` and ``val``.
        train_resolution: Side of the training images, in pixels.
        test_resolution: Side of the test images, cropped out of the centre.
        test_resize: Shorter side of the picture before that crop.
        flip: Whether training images are mirrored left to right at random.
        workers: Processes that read pictures, 0 for none but the trainer.
    """

    name: Literal["imagenet"]
    folder: str | None = None
    train_resolution: PositiveInt = 224
    test_resolution: PositiveInt = 224
    test_resize: PositiveInt = 256
    flip: bool = True
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
        validation_size: Windows of further files on which is validated: of the rest, one file in
            ``held_out`` is then held out too. 0 to train on these files.
    """

    name: Literal["text"]
    folder: str | None = None
    suffixes: list[str] = [".py", ".txt", ".md", ".rst"]
    context: PositiveInt = 128
    held_out: Annotated[int, Field(ge=2)] = 10
    test_windows: PositiveInt = 512
    validation_size: NonNegativeInt = 0


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
