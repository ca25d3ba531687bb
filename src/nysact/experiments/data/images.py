"""Image sets that lie on the device whole, and the batches drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
    """A training and a test set of one source.

    Args:
        train: The training set.
        test: The test set.
        flip: Whether a mirror image has the same class, so that training may flip.
        black: Value of a black pixel, for each channel or for all.
    """

    train: ImageSet
    test: ImageSet
    flip: bool
    black: tuple[float, ...] = (0.0,)

    def to(self, device: torch.device) -> "Data":
        """Copy both sets to a device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def with_train_size(self, size: int | None) -> "Data":
        """Keep a random part of the training set, always the same one.

        Args:
            size: Samples to keep, ``None`` for all.

        Returns:
            The data with the smaller training set.

        Raises:
            ExperimentError: If there are not as many samples.
        """
        return replace(self, train=part_of(self.train, size, "train"))

    def with_test_size(self, size: int | None) -> "Data":
        """Keep a random part of the test set, as :meth:`with_train_size` of the training set."""
        return replace(self, test=part_of(self.test, size, "test"))


def part_of(images: ImageSet, size: int | None, name: str) -> ImageSet:
    """Keep a random part of a set, always the same one.

    Args:
        images: The set.
        size: Samples to keep, ``None`` for all.
        name: ``"train"`` or ``"test"``.

    Returns:
        The part.

    Raises:
        ExperimentError: If there are not as many samples.
    """
    if size is None:
        return images
    if not 1 <= size <= len(images):
        whole = {"train": "training", "test": "test"}[name]
        raise ExperimentError(
            f"{name} size {size}: the {whole} set has {len(images)} samples; "
            f"choose a size from 1 to {len(images)}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:size])


def standardised(train: ImageSet, test: ImageSet, flip: bool) -> Data:
    """Shift and scale both sets so that the training pixels have mean 0 and variance 1."""
    std, mean = torch.std_mean(train.images)
    return Data(
        ImageSet((train.images - mean) / std, train.labels),
        ImageSet((test.images - mean) / std, test.labels),
        flip,
        (float(-mean / std),),
    )


def batches(
    data: ImageSet, batch_size: int, generator: torch.Generator, flip: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through a set once in random order, in whole batches.

    The samples that would make an incomplete last batch are left out of this pass.

    Args:
        data: The images and labels.
        batch_size: Samples a batch.
        generator: A generator on the CPU: the only source of randomness, so that the order
            depends neither on the device nor on anything else that draws random numbers.
        flip: Whether to mirror each image left to right with probability 1/2.

    Yields:
        Images and labels of a batch.
    """
    order = torch.randperm(len(data), generator=generator)
    mirrored = torch.rand(len(data), generator=generator) < 0.5
    for start in range(0, len(data) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size].to(data.labels.device)
        images = data.images[chosen]
        if flip:
            images = flipped(images, mirrored[start : start + batch_size].to(images.device))
        yield images, data.labels[chosen]


def flipped(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror, left to right, the images that a mask (n) of booleans marks."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
