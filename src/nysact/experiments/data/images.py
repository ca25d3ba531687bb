"""Sets of small images that are kept in memory, and the choice of parts of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nysact.experiments.data.augment import flipped
from nysact.experiments.errors import ExperimentError


@dataclass(frozen=True)
class ImageSet:
    """Images (n, channels, h, w) with their class numbers (n)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        """Copy the set to a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))

    def subset(self, indices: Tensor) -> "ImageSet":
        """Pick the samples at the given indices."""
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Data:
    """A training and a test set of one source, and samples held out of the training set."""

    train: ImageSet
    test: ImageSet
    flip: bool  # whether a mirror image has the same class
    black: tuple[float, ...] = (0.0,)  # a black pixel, for each channel or for all
    white: tuple[float, ...] = (1.0,)  # a pixel of full brightness
    validation: ImageSet | None = None

    def to(self, device: torch.device) -> "Data":
        """Copy all sets to a device."""
        held_out = None if self.validation is None else self.validation.to(device)
        train, test = self.train.to(device), self.test.to(device)
        return replace(self, train=train, test=test, validation=held_out)

    def with_train_size(self, size: int | None) -> "Data":
        """Keep a random part of the training set, always the same one; ``None`` keeps all."""
        return replace(self, train=part_of(self.train, size, "train"))

    def with_validation_size(self, size: int, train_size: int | None = None) -> "Data":
        """Hold out a random part of the training set, always the same one."""
        if not size:
            return self.with_train_size(train_size)
        rest, held_out = held_out_of(len(self.train), size)
        # The samples that are kept are those that would be kept if none were held out.
        check_size(train_size, len(rest), "train")
        train, validation = self.train.subset(rest[:train_size]), self.train.subset(held_out)
        return replace(self, train=train, validation=validation)

    def with_test_size(self, size: int | None) -> "Data":
        """Keep a random part of the test set, always the same one."""
        return replace(self, test=part_of(self.test, size, "test"))


def part_of(images: ImageSet, size: int | None, name: str) -> ImageSet:
    """Keep a random part of a set, always the same one."""
    check_size(size, len(images), name)
    return images if size is None else images.subset(fixed_order(len(images))[:size])


def check_size(size: int | None, available: int, name: str) -> None:
    """Refuse a size that the set does not have."""
    if size is not None and not 1 <= size <= available:
        raise ExperimentError(
            f"{name} size {size}: the {name} set has {available} samples; choose a size from 1 to "
            f"{available}"
        )


def fixed_order(samples: int) -> Tensor:
    """Give the random order in which parts of a set are chosen, always the same one."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0))


def held_out_of(samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Split indices into those for training and the last of the fixed order, held out."""
    if size >= samples:
        raise ExperimentError(
            f"data.validation_size={size}: the training set has {samples} samples; hold out fewer"
        )
    order = fixed_order(samples)
    return order[:-size], order[-size:]


def standardised(train: ImageSet, test: ImageSet, flip: bool, white: float = 1.0) -> Data:
    """Shift and scale both sets, in which black is 0, by mean and deviation of training pixels."""
    std, mean = torch.std_mean(train.images)
    train, test = (ImageSet((part.images - mean) / std, part.labels) for part in (train, test))
    return Data(train, test, flip, (float(-mean / std),), (float((white - mean) / std),))


def batches(
    data: ImageSet, batch_size: int, generator: torch.Generator, flip: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through a set once in random order, in whole batches, drawing from the generator alone."""
    order = torch.randperm(len(data), generator=generator)
    mirrored = torch.rand(len(data), generator=generator) < 0.5
    for start in range(0, len(data) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size].to(data.labels.device)
        images = data.images[chosen]
        if flip:
            images = flipped(images, mirrored[start : start + batch_size].to(images.device))
        yield images, data.labels[chosen]
