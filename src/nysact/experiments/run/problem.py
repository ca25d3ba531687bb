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

from nysact.experiments.config import Config
from nysact.experiments.config.data import FolderData, ImageData, TextData
from nysact.experiments.data.augment import FlipAndCrop
from nysact.experiments.data.cifar import load_cifar
from nysact.experiments.data.digits import load_digits
from nysact.experiments.data.fashion_mnist import load_fashion_mnist
from nysact.experiments.data.imagenet import MixingLoader, picture_sets
from nysact.experiments.data.images import Data
from nysact.experiments.data.loaders import (
    Batches,
    DeviceBatches,
    DeviceLoader,
    Loader,
    Share,
    StandardBatches,
    StandardLoader,
)
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
    """

    train: Loader
    test: Batches
    loss: LossFunction


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
    """Load images that are kept on the device whole."""
    images = load_images(data).to(device)
    augmentation = FlipAndCrop(data.flip, data.crop, images.black)
    return Problem(
        DeviceLoader(images.train, config.batch_size, config.seed, augmentation, share),
        DeviceBatches(images.test.images, images.test.labels, EVALUATION_BATCH, share),
        cross_entropy(config.label_smoothing),
    )


def folder_problem(config: Config, data: FolderData, device: torch.device, share: Share) -> Problem:
    """Read pictures as they are needed."""
    classes = int(config.model.options["classes"])
    train, test = picture_sets(data, classes)
    loader: Loader = StandardLoader(
        train, len(train), config.batch_size, config.seed, device, share, data.workers, data.repeats
    )
    if data.mixup or data.cutmix:
        loader = MixingLoader(loader, data.mixup, data.cutmix, classes, config.seed, share)
    batches = StandardBatches(test, len(test), FOLDER_BATCH, device, share, data.workers)
    return Problem(loader, batches, cross_entropy(config.label_smoothing))


def text_problem(config: Config, data: TextData, device: torch.device, share: Share) -> Problem:
    """Cut windows out of text that is kept on the device whole."""
    train, test = (part.to(device) for part in load_text(data))
    return Problem(
        WindowLoader(train, data.context, config.batch_size, config.seed, share),
        WindowBatches(test, data.context, data.test_windows, WINDOW_BATCH, share),
        cross_entropy(config.label_smoothing),
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
    return whole.with_train_size(data.train_size).with_test_size(data.test_size)


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
    if targets.is_floating_point():
        return
    classes, highest = model.classes(**config.model.options), int(targets.max())
    if highest >= classes:
        option = "vocabulary" if model.inputs == "tokens" else "classes"
        raise ExperimentError(
            f"model.options.{option} is {classes}, but {config.data.name} has a target {highest}: "
            f"set model.options.{option} to the number of classes"
        )


@torch.no_grad()
def evaluate(
    model: nn.Module, problem: Problem, accelerator: Accelerator, *, bits: bool = False
) -> dict[str, float]:
    """Measure a model on the test batches of all processes.

    Args:
        model: The model; it is in training mode again afterwards.
        problem: The problem.
        accelerator: Sums up over the processes.
        bits: Whether targets are bytes, whose cross-entropy is also given in bits.

    Returns:
        ``"test_loss"``, then ``"bits_per_byte"``, or for a classifier ``"test_accuracy"`` in
        percent.
    """
    model.eval()
    # The host's numbers are of double precision, whatever the device has.
    sums = [0.0, 0.0, 0.0]
    classifies = False
    for inputs, targets in problem.test:
        outputs = model(inputs)
        sums[0] += float(problem.loss(outputs, targets)) * len(inputs)
        sums[1] += len(inputs)
        scores = getattr(outputs, "logits", outputs)
        if classes_of(scores, targets):
            classifies = True
            sums[2] += int((scores.argmax(-1) == targets).sum())
    model.train()
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(torch.tensor(sums, device=accelerator.device)).tolist()
    loss, samples, correct = sums
    measured = {"test_loss": loss / samples}
    if bits:
        measured["bits_per_byte"] = measured["test_loss"] / math.log(2)
    elif classifies:
        measured["test_accuracy"] = 100 * correct / samples
    return measured


def classes_of(scores: Any, targets: Tensor) -> bool:
    """Tell whether outputs are scores (n, classes) and targets class numbers (n)."""
    return (
        isinstance(scores, Tensor)
        and scores.dim() == 2
        and targets.shape == scores.shape[:1]
        and not targets.is_floating_point()
    )
