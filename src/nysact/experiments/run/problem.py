"""What a configuration trains on: training batches, test batches, a loss."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nysact.experiments.config import OWN, Config
from nysact.experiments.config.data import ArrayData, FolderData, ImageData, Section, TextData
from nysact.experiments.data.augmentation import Augmentation, AugmentedImages
from nysact.experiments.data.cloning import load_cloning, rollout_cost
from nysact.experiments.data.flights import load_flights
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
from nysact.experiments.data.poisson import load_poisson
from nysact.experiments.data.small_images import load_cifar, load_digits, load_fashion_mnist
from nysact.experiments.data.text import WindowLoader, load_text, window_batches
from nysact.experiments.errors import ExperimentError
from nysact.experiments.losses import LossFunction, cross_entropy, relative_error, squared_error
from nysact.experiments.models import find_model

# Samples of a test batch: small images, pictures, numbers, windows of text.
EVALUATION_BATCH = 500
FOLDER_BATCH = 256
ARRAY_BATCH = 10_000
WINDOW_BATCH = 64


@dataclass(frozen=True)
class Problem:
    """What is trained on and how it is judged."""

    train: Loader
    test: Batches
    loss: LossFunction
    validation: Batches | None = None  # held out of the training set
    evaluation_loss: LossFunction | None = None  # where it is another than the training loss
    # The name of the metric that the loss is, with a factor; None for a classifier's accuracy.
    loss_metric: tuple[str, float] | None = None
    # What else is measured of the model, such as how it acts.
    closed_loop: Callable[[nn.Module], dict[str, float]] | None = None

    @property
    def evaluated(self) -> dict[str, Batches]:
        """What is evaluated, by the prefix of its metrics."""
        held_out = {} if self.validation is None else {"validation": self.validation}
        return {"test": self.test, **held_out}


LoadProblem = Callable[[torch.device, Share], Problem]


def load_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Load the data that a configuration names."""
    for kind, load in PROBLEMS.items():
        if isinstance(config.data, kind):
            return load(config, device, share)
    raise ExperimentError(
        f"data.name={config.data.name!r}: pass the data to nysact.experiments.compare"
    )


def image_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Keep small images in memory."""
    data: Any = config.data
    check_used(data)
    images = load_images(data)
    if data.targets == "images":
        return reconstruction(config, images, device, share)
    classes = classes_for(config, images.train.labels)
    train: DeviceLoader | StandardLoader
    if data.loader == "standard":
        train = standard_loader(config, AugmentedImages(images, data), device, share)
    else:
        augmentation = Augmentation(
            data.flip, data.crop, images.black, data.random_erasing, data.erase_with
        )
        train = DeviceLoader(
            images.train.to(device),
            config.batch_size,
            config.seed,
            augmentation,
            share,
            data.repeats,
        )

    def batches(part: ImageSet) -> Batches:
        there = part.to(device)
        return device_batches(there.images, there.labels, EVALUATION_BATCH, share)

    held_out = None if images.validation is None else batches(images.validation)
    return classification(config, mixed(train, config, classes), batches(images.test), held_out)


def reconstruction(config: Config, images: Data, device: torch.device, share: Share) -> Problem:
    """Have small images predicted from themselves, pixel by pixel."""
    # Fashion-MNIST is loaded with a frame of two pixels, which nothing has to learn.
    inner = slice(2, -2) if images.train.images.shape[-1] == 32 else slice(None)
    pairs = [
        part and replace(part, images=(pixels := part.images[..., inner, inner]), labels=pixels)
        for part in (images.train, images.test, images.validation)
    ]
    return regression(config, pairs, device, share)


def regression(
    config: Config, parts: Sequence[ImageSet | None], device: torch.device, share: Share
) -> Problem:
    """Judge real numbers of training, test and validation sets in memory by the squared error."""
    train, *others = (None if part is None else part.to(device) for part in parts)
    assert train is not None
    loader = DeviceLoader(train, config.batch_size, config.seed, Augmentation(), share)
    test, held_out = (
        None if part is None else device_batches(part.images, part.labels, ARRAY_BATCH, share)
        for part in others
    )
    assert test is not None
    metric = ("test_squared_error", 1.0)
    return Problem(loader, test, squared_error, held_out, loss_metric=metric)


def array_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Learn numbers that a package or a formula gives."""
    data: Any = config.data
    arrays = load_arrays(data)
    parts = (arrays.train, arrays.test, arrays.validation)
    problem = regression(config, parts, device, share)
    if data.name == "cloning":
        return replace(problem, closed_loop=partial(rollout_cost, device=device))
    if data.name == "poisson":
        metric = ("test_l2_error", 1.0)
        return replace(problem, evaluation_loss=relative_error, loss_metric=metric)
    return problem


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


def folder_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Read pictures as they are needed."""
    data: Any = config.data
    classes = int(config.model.options["classes"])
    everything, test = picture_sets(data, classes)
    train, held_out = without_validation(everything, data)

    def batches(pictures: Any) -> StandardBatches:
        return StandardBatches(pictures, len(pictures), FOLDER_BATCH, device, share, data.workers)

    loader = mixed(standard_loader(config, train, device, share), config, classes)
    return classification(
        config, loader, batches(test), None if held_out is None else batches(held_out)
    )


def standard_loader(
    config: Config, dataset: Any, device: torch.device, share: Share
) -> StandardLoader:
    """Read training pictures by worker processes."""
    data: Any = config.data
    size, seed = config.batch_size, config.seed
    return StandardLoader(
        dataset, len(dataset), size, seed, device, share, data.workers, data.repeats
    )


def mixed(loader: DeviceLoader | StandardLoader, config: Config, classes: int) -> Loader:
    """Mix the pictures of each batch, if the configuration asks for it."""
    data: Any = config.data
    if not (data.mixup or data.cutmix):
        return loader
    return MixingLoader(loader, data.mixup, data.cutmix, classes, config.seed, loader.share)


def text_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Cut windows out of text that is kept on the device whole."""
    data: Any = config.data
    train, test, *held_out = (part.to(device) for part in load_text(data))

    def batches(text: Tensor, number: int) -> Batches:
        return window_batches(text, data.context, number, WINDOW_BATCH, share)

    loader = WindowLoader(train, data.context, config.batch_size, config.seed, share)
    validation = batches(held_out[0], data.validation_size) if held_out else None
    problem = classification(config, loader, batches(test, data.test_windows), validation)
    return replace(problem, loss_metric=("bits_per_byte", 1 / math.log(2)))


def classification(
    config: Config, train: Loader, test: Batches, held_out: Batches | None
) -> Problem:
    """Judge by cross-entropy; labels are smoothed in training alone."""
    return Problem(train, test, cross_entropy(config.label_smoothing), held_out, cross_entropy())


PROBLEMS: Mapping[type[Section], Callable[[Config, torch.device, Share], Problem]] = {
    ImageData: image_problem,
    FolderData: folder_problem,
    ArrayData: array_problem,
    TextData: text_problem,
}


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


@lru_cache(maxsize=2)
def load_arrays(data: ArrayData) -> Data:
    """Load numbers, and remember them for the next run."""
    if data.name == "poisson":
        whole = load_poisson(data.validation_size)
        return replace(whole.of_sizes(data.train_size, data.test_size), validation=whole.validation)
    whole = load_flights() if data.name == "flights" else load_cloning()
    return whole.of_sizes(data.train_size, data.test_size, data.validation_size)


def check_fit(config: Config, inputs: Tensor, targets: Tensor) -> None:
    """Make sure that a model of the registry reads a batch of the data, and has its classes."""
    if config.model.name == OWN:
        return
    model = find_model(config.model.name)
    found, wanted = inputs.shape[1], model.sample_shape(**config.model.options)[0]
    if model.inputs == "features" and inputs[0].numel() != wanted:
        raise ExperimentError(
            f"model.options.in_features is {wanted}, but {config.data.name} has samples of "
            f"{inputs[0].numel()} numbers: set model.options.in_features={inputs[0].numel()}"
        )
    if model.inputs == "images" and found != wanted:
        raise ExperimentError(
            f"model.options.in_channels is {wanted}, but {config.data.name} has images of "
            f"{found} channels: set model.options.in_channels={found}"
        )
    if model.inputs == "tokens" and found > wanted:
        raise ExperimentError(
            f"data.context is {found}, but model.options.context is {wanted}: set both alike"
        )
    # Targets that are shares of classes were made for as many as the model has.
    if not targets.is_floating_point():
        classes_for(config, targets)


def classes_for(config: Config, targets: Tensor) -> int:
    """Count the classes of the model (of the data, for a user's model), and check the targets."""
    highest = int(targets.max())
    if config.model.name == OWN:
        return highest + 1
    model = find_model(config.model.name)
    classes = model.classes(**config.model.options)
    if highest >= classes:
        option = "vocabulary" if model.inputs == "tokens" else "classes"
        raise ExperimentError(
            f"model.options.{option} is {classes}, but {config.data.name} has a target {highest}: "
            f"set model.options.{option} to the number of classes"
        )
    return classes


def digest_of(data: Section) -> str | None:
    """Hash the bytes of text or of images in memory; ``None`` for pictures and data passed in."""
    parts: Sequence[Tensor] = ()
    if isinstance(data, TextData):
        parts = load_text(data)
    elif isinstance(data, ImageData | ArrayData):
        whole = load_images(data) if isinstance(data, ImageData) else load_arrays(data)
        parts = [part for each in (whole.train, whole.test) for part in (each.images, each.labels)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()[:16] if parts else None
