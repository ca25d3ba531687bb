"""ImageNet: a folder of pictures for each class, read and augmented as they are needed."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from nysact.experiments.config.data import FolderData
from nysact.experiments.data.augment import eraser
from nysact.experiments.data.images import held_out_of
from nysact.experiments.data.policy import policy
from nysact.experiments.errors import ExperimentError

# Mean and standard deviation of each channel, as everywhere.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def picture_sets(data: FolderData, classes: int) -> tuple[Any, Any]:
    """Find the pictures for training and for test.

    Args:
        data: Where they are and how they are augmented.
        classes: How many classes there are to be.

    Returns:
        Two data sets of torchvision, whose samples are an image and its class number.

    Raises:
        ExperimentError: If there is no folder, or not the same classes in both.
    """
    if data.folder is None:
        raise ExperimentError(
            "data.folder is not set: ImageNet cannot be downloaded; name the folder that holds "
            "train and val, with a folder of pictures for each class"
        )
    root = Path(data.folder)
    sets = (
        pictures(root / "train", training_transform(data)),
        pictures(root / "val", centre_transform(data)),
    )
    if sets[0].classes != sets[1].classes:
        odd = sorted(set(sets[0].classes) ^ set(sets[1].classes))
        raise ExperimentError(
            f"{root}: train has {len(sets[0].classes)} classes and val {len(sets[1].classes)}, "
            f"and {odd[0]} is in one of them only; expected the same in both"
        )
    if len(sets[0].classes) != classes:
        found = len(sets[0].classes)
        raise ExperimentError(
            f"{root}: {found} classes, but model.options.classes is {classes}: complete the "
            f"folder, or set model.options.classes={found}"
        )
    return sets


def without_validation(train: Any, data: FolderData) -> tuple[Any, Any]:
    """Hold out a part of the training pictures, always the same ones.

    Args:
        train: The training pictures.
        data: How many to hold out, and how they are read.

    Returns:
        The others, and those held out, which are read as test pictures are; ``None`` if none is.
    """
    if not data.validation_size:
        return train, None
    rest, held_out = held_out_of(len(train), data.validation_size)
    centred = copy(train)
    centred.transform = centre_transform(data)
    return Subset(train, rest.tolist()), Subset(centred, held_out.tolist())


def pictures(folder: Path, transform: Callable[[Any], Tensor]) -> Any:
    """Make a data set of a folder.

    Args:
        folder: The folder, with a folder for each class.
        transform: Makes a tensor of a picture.

    Returns:
        The data set.

    Raises:
        ExperimentError: If there is no such folder, or a class without pictures.
    """
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise ExperimentError(f"{folder}: no such folder; expected one with a folder for a class")
    try:
        return ImageFolder(str(folder), transform, loader=read_picture)
    except FileNotFoundError as error:
        raise ExperimentError(f"{folder}: {' '.join(str(error).split())}") from error


def read_picture(path: str) -> Any:
    """Read a picture.

    Args:
        path: Its file.

    Returns:
        A picture of PIL in RGB.

    Raises:
        ExperimentError: If it is none, or is cut short.
    """
    from PIL import Image

    try:
        with open(path, "rb") as file:
            return Image.open(file).convert("RGB")
    except OSError as error:
        raise ExperimentError(
            f"{path}: not a whole picture ({error}); it is cut short or damaged: get it anew"
        ) from error


def training_transform(data: FolderData) -> Callable[[Any], Tensor]:
    """Make the augmentation of a training picture."""
    from torchvision.transforms import InterpolationMode, v2

    interpolation = InterpolationMode(data.interpolation)
    steps = [v2.RandomResizedCrop(data.train_resolution, interpolation=interpolation)]
    if data.flip:
        steps.append(v2.RandomHorizontalFlip())
    if data.augmentation is not None:
        grey = tuple(round(255 * value) for value in MEAN)
        side = data.train_resolution
        steps.append(policy(data.augmentation, data.interpolation, side, grey))
    steps += as_tensor()
    if data.random_erasing:
        steps.append(eraser(data.random_erasing, data.erase_with))
    return v2.Compose(steps)  # type: ignore[no-any-return]


def centre_transform(data: FolderData) -> Callable[[Any], Tensor]:
    """Make what is done to a test picture: its centre is cut out."""
    from torchvision.transforms import InterpolationMode, v2

    interpolation = InterpolationMode(data.interpolation)
    resize = v2.Resize(data.test_resize, interpolation=interpolation)
    return v2.Compose(  # type: ignore[no-any-return]
        [resize, v2.CenterCrop(data.test_resolution), *as_tensor()]
    )


def as_tensor() -> list[Any]:
    """Make a standardised tensor of a picture, in three steps."""
    from torchvision.transforms import v2

    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
