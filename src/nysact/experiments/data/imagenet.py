"""ImageNet: a folder of pictures for each class, read and augmented as they are needed."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from nysact.experiments.config.data import FolderData
from nysact.experiments.data.augmentation import augmented, policy
from nysact.experiments.data.images import held_out_of
from nysact.experiments.errors import ExperimentError

# Mean and standard deviation of each channel, as everywhere.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def picture_sets(data: FolderData, classes: int) -> tuple[Any, Any]:
    """Open the pictures for training and for test as torchvision's data sets."""
    if data.folder is None:
        raise ExperimentError(
            "data.folder is not set: ImageNet cannot be downloaded; name the folder that holds "
            "train and val, with a folder of pictures for each class"
        )
    root = Path(data.folder)
    train = pictures(root / "train", training_transform(data))
    test = pictures(root / "val", centre_transform(data))
    odd = sorted(set(train.classes) ^ set(test.classes))
    if odd:
        raise ExperimentError(
            f"{root}: train has {len(train.classes)} classes and val {len(test.classes)}, and "
            f"{odd[0]} is in one of them only; expected the same in both"
        )
    if len(train.classes) != classes:
        raise ExperimentError(
            f"{root}: {len(train.classes)} classes, but model.options.classes is {classes}: "
            f"complete the folder, or set model.options.classes={len(train.classes)}"
        )
    return train, test


def without_validation(train: Any, data: FolderData) -> tuple[Any, Any]:
    """Hold out a fixed part of the training pictures, read as test pictures are; or ``None``."""
    if not data.validation_size:
        return train, None
    rest, held_out = held_out_of(len(train), data.validation_size)
    centred = copy(train)
    centred.transform = centre_transform(data)
    return Subset(train, rest.tolist()), Subset(centred, held_out.tolist())


def pictures(folder: Path, transform: Callable[[Any], Tensor]) -> Any:
    """Open a folder that has a folder for each class."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise ExperimentError(f"{folder}: no such folder; expected one with a folder for a class")
    try:
        return ImageFolder(str(folder), transform, loader=read_picture)
    except FileNotFoundError as error:
        raise ExperimentError(f"{folder}: {' '.join(str(error).split())}") from error


def read_picture(path: str) -> Any:
    """Read a file as a PIL picture in RGB."""
    from PIL import Image

    try:
        with open(path, "rb") as file:
            return Image.open(file).convert("RGB")
    except OSError as error:
        raise ExperimentError(
            f"{path}: not a whole picture ({error}); it is cut short or damaged: copy it again"
        ) from error


def training_transform(data: FolderData) -> Callable[[Any], Tensor]:
    """Make the augmentation of a training picture."""
    from torchvision.transforms import InterpolationMode, v2

    interpolation, side = InterpolationMode(data.interpolation), data.train_resolution
    crop = v2.RandomResizedCrop(side, interpolation=interpolation)
    grey = tuple(round(255 * value) for value in MEAN)
    name = data.augmentation
    change = [] if name is None else [policy(name, data.interpolation, side, grey)]
    return augmented(data, [crop], change, as_tensor())  # type: ignore[no-any-return]


def centre_transform(data: FolderData) -> Callable[[Any], Tensor]:
    """Make the transform of a test picture: resize, and cut out the centre."""
    from torchvision.transforms import InterpolationMode, v2

    resize = v2.Resize(data.test_resize, interpolation=InterpolationMode(data.interpolation))
    steps = [resize, v2.CenterCrop(data.test_resolution), *as_tensor()]
    return v2.Compose(steps)  # type: ignore[no-any-return]


def as_tensor() -> list[Any]:
    """Make the steps from a picture to a standardised tensor."""
    from torchvision.transforms import v2

    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
