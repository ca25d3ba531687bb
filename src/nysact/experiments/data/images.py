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
        white: Value of a pixel of full brightness, likewise.
        validation: Samples held out of the training set, if any.
    """

    train: ImageSet
    test: ImageSet
    flip: bool
    black: tuple[float, ...] = (0.0,)
    white: tuple[float, ...] = (1.0,)
    validation: ImageSet | None = None

    def to(self, device: torch.device) -> "Data":
        """Copy all sets to a device."""
        held_out = self.validation
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            validation=None if held_out is None else held_out.to(device),
        )

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

    def with_validation_size(self, size: int, train_size: int | None = None) -> "Data":
        """Hold out a random part of the training set, always the same one.

        Args:
            size: Samples to hold out, 0 for none.
            train_size: Of the others, samples to keep; they are those that would be kept if none
                were held out.

        Returns:
            The data with the smaller training set, and a validation set.
        """
        if not size:
            return self.with_train_size(train_size)
        rest, held_out = held_out_of(len(self.train), size)
        check_size(train_size, len(rest), "train")
        return replace(
            self,
            train=self.train.subset(rest[:train_size]),
            validation=self.train.subset(held_out),
        )

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
    check_size(size, len(images), name)
    return images if size is None else images.subset(fixed_order(len(images))[:size])


def check_size(size: int | None, there: int, name: str) -> None:
    """Make sure that a set has as many samples as are to be kept.

    Args:
        size: How many, ``None`` for all.
        there: How many there are.
        name: ``"train"`` or ``"test"``.

    Raises:
        ExperimentError: If there are not as many.
    """
    if size is not None and not 1 <= size <= there:
        whole = {"train": "training", "test": "test"}[name]
        raise ExperimentError(
            f"{name} size {size}: the {whole} set has {there} samples; "
            f"choose a size from 1 to {there}"
        )


def fixed_order(samples: int) -> Tensor:
    """Give the random order in which parts of a set are chosen, always the same one."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0))


def held_out_of(samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Choose samples of a training set for validation: the last ones of the fixed order.

    Args:
        samples: The size of the training set.
        size: How many to choose.

    Returns:
        The indices of the others, and those of the chosen ones.

    Raises:
        ExperimentError: If none would be left.
    """
    if size >= samples:
        raise ExperimentError(
            f"data.validation_size={size}: the training set has {samples} samples; hold out fewer"
        )
    order = fixed_order(samples)
    return order[:-size], order[-size:]


def standardised(train: ImageSet, test: ImageSet, flip: bool, white: float = 1.0) -> Data:
    """Shift and scale both sets so that the training pixels have mean 0 and variance 1.

    Args:
        train: The training set, where black is 0.
        test: The test set, likewise.
        flip: Whether a mirror image has the same class.
        white: Value of a pixel of full brightness.

    Returns:
        The data.
    """
    std, mean = torch.std_mean(train.images)
    return Data(
        ImageSet((train.images - mean) / std, train.labels),
        ImageSet((test.images - mean) / std, test.labels),
        flip,
        (float(-mean / std),),
        (float((white - mean) / std),),
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
