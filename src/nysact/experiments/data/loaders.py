"""Batches for training and for tests, each determined by seed, epoch and number alone.

A loader keeps no state: the batches of an epoch, and the augmentation of each sample, follow from
the seed and the epoch, on whatever device, with whatever number of processes that read. So a run
that was stopped goes on with the very batch that it would have seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nysact.experiments.data.augment import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded, stream

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Share:
    """Which of several training processes this is: it sees every ``count``-th sample of a batch."""

    index: int = 0
    count: int = 1

    def of(self, batch: Any) -> Any:
        """Take this process's share of a batch."""
        return batch[self.index :: self.count]


class Loader(Protocol):
    """Gives the training batches."""

    def __len__(self) -> int:
        """Count the batches of an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from one of its batches on."""


class Batches(Protocol):
    """Gives the test batches, each sample once, in the same order each time."""

    def __iter__(self) -> Iterator[Batch]: ...


def whole_batches(samples: int, batch_size: int, share: Share) -> int:
    """Count the whole batches of an epoch; what is left over is left out of it.

    Args:
        samples: Size of the training set.
        batch_size: Samples a batch, over all processes.
        share: Which process this is.

    Returns:
        The number of batches.

    Raises:
        ExperimentError: If there is none, or batches cannot be shared evenly.
    """
    if batch_size > samples:
        raise ExperimentError(
            f"batch_size={batch_size}: the training set has {samples} samples; choose a smaller "
            "batch or more data"
        )
    if batch_size % share.count:
        raise ExperimentError(
            f"batch_size={batch_size}: expected a multiple of the {share.count} processes"
        )
    return samples // batch_size


def random_order(samples: int, repeats: int, generator: torch.Generator) -> Tensor:
    """Draw the order of an epoch.

    Args:
        samples: Size of the training set, and of the epoch.
        repeats: How often it shows each of its samples, one after the other.
        generator: The source of randomness.

    Returns:
        Indices of samples.
    """
    order = torch.randperm(samples, generator=generator)
    return order.repeat_interleave(repeats)[:samples]


class DeviceLoader:
    """Batches of images that lie on the device whole.

    Args:
        images: The training set, on the device.
        batch_size: Samples a batch, over all processes.
        seed: Seed of order and augmentation.
        augmentation: What is done to the images at random.
        share: Which process this is.
        repeats: How often an epoch shows each of its samples, as in :class:`StandardLoader`.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        share: Share,
        repeats: int = 1,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.share = share
        self.repeats = repeats
        self.batches = whole_batches(len(images), batch_size, share)

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from one of its batches on.

        Args:
            number: The epoch, from 0.
            start: The first batch, from 0.

        Yields:
            This process's share of each batch: images and labels.
        """
        generator = stream(self.seed, "order", number)
        order = random_order(len(self.images), self.repeats, generator)
        drawn = self.augmentation.draw(len(self.images), generator)
        for batch in range(start, self.batches):
            first = batch * self.batch_size
            part = slice(first + self.share.index, first + self.batch_size, self.share.count)
            chosen = order[part].to(self.images.labels.device)
            images = self.augmentation.apply(
                self.images.images[chosen], {name: rows[part] for name, rows in drawn.items()}
            )
            yield images, self.images.labels[chosen]


class DeviceBatches:
    """Test batches of tensors that lie on the device whole.

    Args:
        inputs: All inputs.
        targets: All targets.
        batch_size: Samples a batch.
        share: Which process this is.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int, share: Share) -> None:
        self.inputs = share.of(inputs)
        self.targets = share.of(targets)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        inputs, targets = self.inputs.split(self.batch_size), self.targets.split(self.batch_size)
        return zip(inputs, targets, strict=True)


class Seeded(Dataset[Any]):
    """Reads a sample with the global random streams seeded for it.

    Args:
        dataset: The data set, whose transforms may draw random numbers.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        with seeded(seed):
            return self.dataset[index]


class StandardLoader:
    """Batches of a data set that is read as it is needed, by torch's ``DataLoader``.

    Args:
        dataset: Gives an input and a target for each index.
        samples: Its size.
        batch_size: Samples a batch, over all processes.
        seed: Seed of order and augmentation.
        device: Where batches go.
        share: Which process this is.
        workers: Processes that read, 0 for none but this one.
        repeats: How often an epoch shows each of its samples, one after the other; an epoch of
            as many samples then has only so many fewer different ones.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        samples: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        share: Share,
        workers: int = 0,
        repeats: int = 1,
    ) -> None:
        self.dataset = Seeded(dataset)
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.share = share
        self.workers = workers
        self.repeats = repeats
        self.batches = whole_batches(samples, batch_size, share)

    def __len__(self) -> int:
        return self.batches

    def keys(self, number: int) -> list[tuple[int, int]]:
        """Give the samples of an epoch in order, each with the seed of its augmentation.

        Args:
            number: The epoch, from 0.

        Returns:
            Pairs of index and seed.
        """
        generator = stream(self.seed, "order", number)
        order = random_order(self.samples, self.repeats, generator)
        seeds = torch.randint(2**62, (self.samples,), generator=generator)
        return list(zip(order.tolist(), seeds.tolist(), strict=True))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from one of its batches on.

        Args:
            number: The epoch, from 0.
            start: The first batch, from 0.

        Yields:
            This process's share of each batch: inputs and targets.
        """
        keys, size = self.keys(number), self.batch_size
        parts = [
            self.share.of(keys[batch * size : (batch + 1) * size])
            for batch in range(start, self.batches)
        ]
        yield from read(self.dataset, parts, self.device, self.workers)


class StandardBatches:
    """Test batches of a data set that is read as it is needed.

    Args:
        dataset: Gives an input and a target for each index.
        samples: Its size.
        batch_size: Samples a batch.
        device: Where batches go.
        share: Which process this is.
        workers: Processes that read, 0 for none but this one.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        samples: int,
        batch_size: int,
        device: torch.device,
        share: Share,
        workers: int = 0,
    ) -> None:
        self.dataset = Seeded(dataset)
        keys = share.of([(index, 0) for index in range(samples)])
        self.parts = [keys[first : first + batch_size] for first in range(0, len(keys), batch_size)]
        self.device = device
        self.workers = workers

    def __iter__(self) -> Iterator[Batch]:
        return read(self.dataset, self.parts, self.device, self.workers)


def read(
    dataset: Seeded, parts: Sequence[Sequence[tuple[int, int]]], device: torch.device, workers: int
) -> Iterator[Batch]:
    """Read batches of samples.

    Args:
        dataset: The data set.
        parts: The keys of the samples of each batch.
        device: Where batches go.
        workers: Processes that read, 0 for none but this one.

    Yields:
        Inputs and targets of each batch.

    Raises:
        ExperimentError: If a sample cannot be read.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=parts,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # Of its own, lest the loader draw from the global stream when it starts.
        generator=torch.Generator().manual_seed(0),
    )
    try:
        for inputs, targets in loader:
            yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
    except ExperimentError as error:
        # Out of another process it comes with that one's traceback before it.
        raise ExperimentError(str(error).rpartition("ExperimentError: ")[2].strip()) from error
