"""What a configuration trains on: training batches, test batches, a loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from nysact.experiments.config import OWN, Config
from nysact.experiments.config.data import Augmented, FolderData, ImageData, TextData
from nysact.experiments.data.augment import Augmentation
from nysact.experiments.data.cifar import load_cifar
from nysact.experiments.data.digits import load_digits
from nysact.experiments.data.fashion_mnist import load_fashion_mnist
from nysact.experiments.data.imagenet import picture_sets, without_validation
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.data.loaders import (
    Batches,
    DeviceBatches,
    DeviceLoader,
    Loader,
    Share,
    StandardBatches,
    StandardLoader,
)
from nysact.experiments.data.mixing import MixingLoader
from nysact.experiments.data.samples import AugmentedImages
from nysact.experiments.data.text import WindowBatches, WindowLoader, load_text
from nysact.experiments.errors import ExperimentError
from nysact.experiments.models import find_model

LossFunction = Callable[[Any, Tensor], Tensor]
# Samples of a test batch: small images, pictures, windows of text.
EVALUATION_BATCH = 500
FOLDER_BATCH = 256
WINDOW_BATCH = 64


@dataclass(frozen=True)
class Problem:
    """What is trained on and how it is judged.

    Args:
        train: The training batches.
        test: The test batches.
        loss: Maps a model's output and the targets to the mean loss.
        validation: Batches held out of the training set, if any.
        evaluation_loss: The loss on test and validation batches, where it is another.
    """

    train: Loader
    test: Batches
    loss: LossFunction
    validation: Batches | None = None
    evaluation_loss: LossFunction | None = None

    @property
    def evaluated(self) -> dict[str, Batches]:
        """What is evaluated, by what its metrics' names begin with."""
        held_out = {} if self.validation is None else {"validation": self.validation}
        return {"test": self.test, **held_out}


def load_problem(config: Config, device: torch.device, share: Share) -> Problem:
    """Load the data that a configuration names.

    Args:
        config: The configuration.
        device: Where to train.
        share: Which of several processes this is.

    Returns:
        The problem.

    Raises:
        ExperimentError: If the data is not to be had or not what it should be.
    """
    data = config.data
    if isinstance(data, ImageData):
        return image_problem(config, data, device, share)
    if isinstance(data, FolderData):
        return folder_problem(config, data, device, share)
    if isinstance(data, TextData):
        return text_problem(config, data, device, share)
    raise ExperimentError(f"data.name={data.name!r}: hand the data over to run()")


def image_problem(config: Config, data: ImageData, device: torch.device, share: Share) -> Problem:
    """Load small images, all of which are kept in memory."""
    check_used(data)
    images = load_images(data)
    classes = classes_for(config, images.train.labels)
    loader = image_loader(config, data, images, device, share)
    held_out = images.validation
    return Problem(
        mixing(loader, config, data, classes, share),
        evaluation_batches(images.test, device, share),
        cross_entropy(config.label_smoothing),
        None if held_out is None else evaluation_batches(held_out, device, share),
        cross_entropy(),
    )


def check_used(data: ImageData) -> None:
    """Make sure that no setting of small images would be ignored.

    Args:
        data: The settings.

    Raises:
        ExperimentError: If the loader or augmentation asked for doesn't know one.
    """
    for name, none in (("augmentation", None), ("workers", 0)):
        value = getattr(data, name)
        if data.loader == "device" and value != none:
            raise ExperimentError(
                f"data.{name}={value!r}: data.loader=device has none; set data.loader=standard, or "
                f"data.{name}={str(none).lower()}"
            )
    if data.interpolation != "bilinear" and data.augmentation is None:
        raise ExperimentError(
            f"data.interpolation={data.interpolation!r}: small images are interpolated by a policy "
            "alone; set data.augmentation, or data.interpolation=bilinear"
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


def evaluation_batches(images: ImageSet, device: torch.device, share: Share) -> DeviceBatches:
    """Keep images for evaluation on the device."""
    there = images.to(device)
    return DeviceBatches(there.images, there.labels, EVALUATION_BATCH, share)


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
    return Problem(
        mixing(loader, config, data, classes, share),
        batches(test),
        cross_entropy(config.label_smoothing),
        None if held_out is None else batches(held_out),
        cross_entropy(),
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

    def batches(text: Tensor, number: int) -> WindowBatches:
        return WindowBatches(text, data.context, number, WINDOW_BATCH, share)

    return Problem(
        WindowLoader(train, data.context, config.batch_size, config.seed, share),
        batches(test, data.test_windows),
        cross_entropy(config.label_smoothing),
        batches(held_out[0], data.validation_size) if held_out else None,
        cross_entropy(),
    )


@lru_cache(maxsize=2)
def load_images(data: ImageData) -> Data:
    """Load images, and remember them for the next run.

    Args:
        data: Which, and how many.

    Returns:
        The images, on the CPU.
    """
    folder = None if data.folder is None else Path(data.folder)
    if data.name == "digits":
        whole = load_digits()
    elif data.name == "fashion-mnist":
        whole = load_fashion_mnist(folder)
    else:
        whole = load_cifar(data.name, folder)
    kept = whole.with_validation_size(data.validation_size, data.train_size)
    return kept.with_test_size(data.test_size)


def cross_entropy(label_smoothing: float = 0.0) -> LossFunction:
    """Make the mean cross-entropy of classifiers and of language models.

    Args:
        label_smoothing: Share of the targets that is spread evenly over all classes.

    Returns:
        A function of scores (..., classes), or of an output with such ``logits``, and of targets:
        class numbers (...) or shares of the classes (..., classes).
    """

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        scores: Tensor = getattr(outputs, "logits", outputs)
        if not targets.is_floating_point():
            scores, targets = scores.flatten(0, -2), targets.flatten()
        return F.cross_entropy(scores, targets, label_smoothing=label_smoothing)

    return loss


def check_fit(config: Config, inputs: Tensor, targets: Tensor) -> None:
    """Make sure that a model of the registry reads the data, and has all its classes.

    Args:
        config: The configuration.
        inputs: A batch.
        targets: Its targets.

    Raises:
        ExperimentError: If it does not.
    """
    model = find_model(config.model.name)
    if model.inputs == "images":
        found, wanted = inputs.shape[1], model.sample_shape(**config.model.options)[0]
        if found != wanted:
            raise ExperimentError(
                f"model.options.in_channels is {wanted}, but {config.data.name} has images of "
                f"{found} channels: set model.options.in_channels={found}"
            )
    if model.inputs == "tokens":
        found, wanted = inputs.shape[1], model.sample_shape(**config.model.options)[0]
        if found > wanted:
            raise ExperimentError(
                f"data.context is {found}, but model.options.context is {wanted}: set both alike"
            )
    # Targets that are shares of classes were made for as many as the model has.
    if not targets.is_floating_point():
        classes_for(config, targets)


def classes_for(config: Config, targets: Tensor) -> int:
    """Count the classes of a model, and make sure that it has those of the data.

    Args:
        config: The configuration.
        targets: Class numbers.

    Returns:
        The number, which for a model that is not of the registry is that of the data.

    Raises:
        ExperimentError: If the model has too few.
    """
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


def evaluate(
    model: nn.Module, problem: Problem, accelerator: Accelerator, *, bits: bool = False
) -> dict[str, float]:
    """Measure a model on the test batches of all processes, and on those held out for validation.

    Args:
        model: The model; it is in training mode again afterwards.
        problem: The problem.
        accelerator: Sums up over the processes.
        bits: Whether targets are bytes, whose cross-entropy is also given in bits.

    Returns:
        ``"test_loss"``, then ``"bits_per_byte"``, or for a classifier ``"test_accuracy"`` in
        percent; where there is a validation set, likewise ``"validation_loss"`` and
        ``"validation_accuracy"``.
    """
    measured = {}
    model.eval()
    for part, batches in problem.evaluated.items():
        loss, accuracy = measure(
            model, batches, problem.evaluation_loss or problem.loss, accelerator
        )
        measured[f"{part}_loss"] = loss
        if bits and part == "test":
            measured["bits_per_byte"] = loss / math.log(2)
        elif accuracy is not None and not bits:
            measured[f"{part}_accuracy"] = accuracy
    model.train()
    return measured


@torch.no_grad()
def measure(
    model: nn.Module, batches: Batches, loss: LossFunction, accelerator: Accelerator
) -> tuple[float, float | None]:
    """Measure a model on batches of all processes.

    Args:
        model: The model.
        batches: The batches.
        loss: The loss.
        accelerator: Sums up over the processes.

    Returns:
        The mean loss, and for a classifier its accuracy in percent.
    """
    # The host's numbers are of double precision, whatever the device has.
    sums = [0.0, 0.0, 0.0]
    classifies = False
    for inputs, targets in batches:
        outputs = model(inputs)
        sums[0] += float(loss(outputs, targets)) * len(inputs)
        sums[1] += len(inputs)
        scores = getattr(outputs, "logits", outputs)
        if classes_of(scores, targets):
            classifies = True
            sums[2] += int((scores.argmax(-1) == targets).sum())
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(torch.tensor(sums, device=accelerator.device)).tolist()
    total, samples, correct = sums
    return total / samples, 100 * correct / samples if classifies else None


def classes_of(scores: Any, targets: Tensor) -> bool:
    """Tell whether outputs are scores (n, classes) and targets class numbers (n)."""
    return (
        isinstance(scores, Tensor)
        and scores.dim() == 2
        and targets.shape == scores.shape[:1]
        and not targets.is_floating_point()
    )
