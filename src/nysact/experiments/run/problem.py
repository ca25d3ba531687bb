"""What a configuration trains on: training batches, test batches, a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.config import Config
from nysact.experiments.config.data import Augmented, FolderData, ImageData, TextData
from nysact.experiments.data.augmentation import Augmentation, AugmentedImages
from nysact.experiments.data.imagenet import picture_sets, without_validation
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.data.loaders import (
    Batches,
    DeviceLoader,
    Loader,
    Share,
    StandardBatches,
    StandardLoader,
    device_batches,
)
from nysact.experiments.data.mixing import MixingLoader
from nysact.experiments.data.small_images import load_cifar, load_digits, load_fashion_mnist
from nysact.experiments.data.text import WindowLoader, load_text, window_batches
from nysact.experiments.errors import ExperimentError
from nysact.experiments.losses import LossFunction, cross_entropy
from nysact.experiments.run.fit import classes_for

# Samples of a test batch: small images, pictures, windows of text.
EVALUATION_BATCH = 500
FOLDER_BATCH = 256
WINDOW_BATCH = 64


@dataclass(frozen=True)
class Problem:
    """What is trained on and how it is judged."""

    train: Loader
    test: Batches
    loss: LossFunction
    validation: Batches | None = None  # held out of the training set
    evaluation_loss: LossFunction | None = None  # where it is another than the training loss

    @property
    def evaluated(self) -> dict[str, Batches]:
        """What is evaluated, by the prefix of its metrics."""
        held_out = {} if self.validation is None else {"validation": self.validation}
        return {"test": self.test, **held_out}


LoadProblem = Callable[[torch.device, Share], Problem]


def load_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Load the data that a configuration names."""
    data = config.data
    if isinstance(data, ImageData):
        return image_problem(config, data, device, share)
    if isinstance(data, FolderData):
        return folder_problem(config, data, device, share)
    if isinstance(data, TextData):
        return text_problem(config, data, device, share)
    raise ExperimentError(f"data.name={data.name!r}: pass the data to nysact.experiments.compare")


def classification(
    config: Config, train: Loader, test: Batches, held_out: Batches | None
) -> Problem:
    """Judge by cross-entropy; labels are smoothed in training alone."""
    return Problem(train, test, cross_entropy(config.label_smoothing), held_out, cross_entropy())


def image_problem(config: Config, data: ImageData, device: torch.device, share: Share) -> Problem:
    """Keep small images in memory."""
    check_used(data)
    images = load_images(data)
    classes = classes_for(config, images.train.labels)
    loader = image_loader(config, data, images, device, share)

    def batches(part: ImageSet) -> Batches:
        there = part.to(device)
        return device_batches(there.images, there.labels, EVALUATION_BATCH, share)

    return classification(
        config,
        mixing(loader, config, data, classes, share),
        batches(images.test),
        None if images.validation is None else batches(images.validation),
    )


def check_used(data: ImageData) -> None:
    """Refuse settings that the loader of small images would ignore."""
    for name, none in (("augmentation", None), ("workers", 0)):
        value = getattr(data, name)
        if data.loader == "device" and value != none:
            raise ExperimentError(
                f"data.{name}={value!r}: data.loader=device has none; set data.loader=standard, or "
                f"data.{name}={str(none).lower()}"
            )
    if data.interpolation != "bilinear" and data.augmentation is None:
        raise ExperimentError(
            f"data.interpolation={data.interpolation!r}: only an augmentation policy interpolates "
            "small images; set data.augmentation, or data.interpolation=bilinear"
        )


def image_loader(
    config: Config, data: ImageData, images: Data, device: torch.device, share: Share
) -> DeviceLoader | StandardLoader:
    """Make the loader of small training images that the configuration asks for."""
    size, seed = config.batch_size, config.seed
    if data.loader == "standard":
        dataset = AugmentedImages(images, data)
        return StandardLoader(
            dataset, len(dataset), size, seed, device, share, data.workers, data.repeats
        )
    augmentation = Augmentation(
        data.flip, data.crop, images.black, data.random_erasing, data.erase_with
    )
    return DeviceLoader(images.train.to(device), size, seed, augmentation, share, data.repeats)


def folder_problem(config: Config, data: FolderData, device: torch.device, share: Share) -> Problem:
    """Read pictures as they are needed."""
    classes = int(config.model.options["classes"])
    everything, test = picture_sets(data, classes)
    train, held_out = without_validation(everything, data)

    def batches(pictures: Any) -> StandardBatches:
        return StandardBatches(pictures, len(pictures), FOLDER_BATCH, device, share, data.workers)

    loader = StandardLoader(
        train, len(train), config.batch_size, config.seed, device, share, data.workers, data.repeats
    )
    return classification(
        config,
        mixing(loader, config, data, classes, share),
        batches(test),
        None if held_out is None else batches(held_out),
    )


def mixing(
    loader: DeviceLoader | StandardLoader,
    config: Config,
    data: Augmented,
    classes: int,
    share: Share,
) -> Loader:
    """Mix the pictures of each batch, if the configuration asks for it."""
    if not (data.mixup or data.cutmix):
        return loader
    return MixingLoader(loader, data.mixup, data.cutmix, classes, config.seed, share)


def text_problem(config: Config, data: TextData, device: torch.device, share: Share) -> Problem:
    """Cut windows out of text that is kept on the device whole."""
    train, test, *held_out = (part.to(device) for part in load_text(data))

    def batches(text: Tensor, number: int) -> Batches:
        return window_batches(text, data.context, number, WINDOW_BATCH, share)

    return classification(
        config,
        WindowLoader(train, data.context, config.batch_size, config.seed, share),
        batches(test, data.test_windows),
        batches(held_out[0], data.validation_size) if held_out else None,
    )


@lru_cache(maxsize=2)
def load_images(data: ImageData) -> Data:
    """Load images onto the CPU, and remember them for the next run."""
    folder = None if data.folder is None else Path(data.folder)
    if data.name == "digits":
        whole = load_digits()
    elif data.name == "fashion-mnist":
        whole = load_fashion_mnist(folder)
    else:
        whole = load_cifar(data.name, folder)
    return whole.of_sizes(data.train_size, data.test_size, data.validation_size)
