"""ImageNet: a folder of pictures for each class, read and augmented as they are needed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.config.data import FolderData
from nysact.experiments.data.loaders import Batch, Loader, Share
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import mixed, seeded

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
        steps.append(policy(data.augmentation, data.train_resolution))
    steps += as_tensor()
    if data.random_erasing:
        value = "random" if data.erase_with == "noise" else 0
        steps.append(v2.RandomErasing(data.random_erasing, value=value))
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


def policy(name: str, resolution: int) -> Any:
    """Make an augmentation policy.

    Args:
        name: ``"trivial-augment"``, or a policy in timm's notation.
        resolution: Side of the pictures, to which timm's translations are relative.

    Returns:
        A function of a picture.

    Raises:
        ExperimentError: If timm does not know it.
    """
    if name == "trivial-augment":
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide()
    from timm.data.auto_augment import rand_augment_transform

    grey = tuple(round(255 * value) for value in MEAN)
    try:
        return rand_augment_transform(
            name, {"translate_const": int(0.45 * resolution), "img_mean": grey}
        )
    except (AssertionError, ValueError) as error:
        raise ExperimentError(
            f"data.augmentation={name!r}: expected trivial-augment, or timm's notation of a "
            "RandAugment, such as rand-m9-mstd0.5-inc1"
        ) from error


class MixingLoader:
    """Mixes the pictures of each batch, by mixup or by CutMix.

    Args:
        loader: Gives the batches.
        mixup: Parameter alpha of mixup, 0 for none.
        cutmix: Parameter alpha of CutMix, 0 for none; with mixup, each gets half of the batches.
        classes: Number of classes.
        seed: Seed of the mixing.
        share: Which process this is.
    """

    def __init__(
        self, loader: Loader, mixup: float, cutmix: float, classes: int, seed: int, share: Share
    ) -> None:
        from torchvision.transforms import v2

        kinds = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self.mix = v2.RandomChoice(
            [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
        )
        self.loader = loader
        self.seed = seed
        self.share = share

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from one of its batches on.

        Args:
            number: The epoch, from 0.
            start: The first batch, from 0.

        Yields:
            Pictures, and the share of each class in them.
        """
        for batch, (images, labels) in enumerate(self.loader.epoch(number, start), start):
            with seeded(mixed(self.seed, "mix", number, batch, self.share.index)):
                pair = self.mix(images, labels)
            yield pair[0], pair[1]
