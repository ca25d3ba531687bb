"""Batches for training and for tests, each determined by seed, epoch and number alone.

A loader keeps no state: the batches of an epoch, and the augmentation of each sample, follow from
the seed and the epoch, on any device, with any number of reading processes. So a resumed run
continues with the very batch that it would have seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nysact.experiments.data.augmentation import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded, stream

Batch = tuple[Tensor, Tensor]
# Test batches: each sample once, in the same order each time.
Batches = Iterable[Batch]
Key = tuple[int, int]  # the index of a sample, and the seed of its augmentation


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
        """Give this process's share of each batch of an epoch, from batch ``start`` on."""


class ShuffledLoader:
    """What training loaders share: whole batches of a random order.

    A batch is shared by all processes. With ``repeats`` an epoch shows each sample so often in a
    row, and only so many fewer different ones. Samples that fill no batch are left out.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, share: Share, repeats: int = 1
    ) -> None:
        if batch_size > samples:
            raise ExperimentError(
                f"batch_size={batch_size}: the training set has {samples} samples; choose a "
                "smaller batch or more data"
            )
        if batch_size % share.count:
            raise ExperimentError(
                f"batch_size={batch_size}: expected a multiple of the {share.count} processes"
            )
        self.samples, self.batch_size, self.repeats = samples, batch_size, repeats
        self.seed, self.share = seed, share

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def order(self, generator: torch.Generator) -> Tensor:
        """Draw the samples of an epoch, in order."""
        order = torch.randperm(self.samples, generator=generator)
        return order.repeat_interleave(self.repeats)[: self.samples]

    def slices(self, start: int) -> Iterator[slice]:
        """Give the places, in the order, of this process's share of each batch."""
        for first in range(start * self.batch_size, len(self) * self.batch_size, self.batch_size):
            yield slice(first + self.share.index, first + self.batch_size, self.share.count)


class DeviceLoader(ShuffledLoader):
    """Batches of images that are kept on the device."""

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        share: Share,
        repeats: int = 1,
    ) -> None:
        super().__init__(len(images), batch_size, seed, share, repeats)
        self.images, self.augmentation = images, augmentation

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Give images and labels of each batch, from batch ``start`` on."""
        generator = stream(self.seed, "order", number)
        order = self.order(generator)
        drawn = self.augmentation.draw(self.samples, generator)
        for part in self.slices(start):
            chosen = order[part].to(self.images.labels.device)
            rows = {name: values[part] for name, values in drawn.items()}
            images = self.augmentation.apply(self.images.images[chosen], rows)
            yield images, self.images.labels[chosen]


def device_batches(inputs: Tensor, targets: Tensor, size: int, share: Share) -> Batches:
    """Make test batches of tensors that are kept on the device."""
    return list(zip(*(share.of(part).split(size) for part in (inputs, targets)), strict=True))


class StandardLoader(ShuffledLoader):
    """Batches of a data set that is read as it is needed, by ``workers`` further processes."""

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
        super().__init__(samples, batch_size, seed, share, repeats)
        self.dataset, self.device, self.workers = dataset, device, workers

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Give inputs and targets of each batch, from batch ``start`` on."""
        generator = stream(self.seed, "order", number)
        order = self.order(generator).tolist()
        seeds = torch.randint(2**62, (self.samples,), generator=generator).tolist()
        keys = list(zip(order, seeds, strict=True))
        parts = [keys[part] for part in self.slices(start)]
        return read(self.dataset, parts, self.device, self.workers)


class StandardBatches:
    """Test batches of a data set that is read as it is needed."""

    def __init__(
        self,
        dataset: Dataset[Any],
        samples: int,
        batch_size: int,
        device: torch.device,
        share: Share,
        workers: int = 0,
    ) -> None:
        self.dataset, self.device, self.workers = dataset, device, workers
        keys = share.of([(index, 0) for index in range(samples)])
        self.parts = [keys[first : first + batch_size] for first in range(0, len(keys), batch_size)]

    def __iter__(self) -> Iterator[Batch]:
        return read(self.dataset, self.parts, self.device, self.workers)


class Seeded(Dataset[Any]):
    """Reads a sample with the global random streams, from which transforms draw, seeded for it."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Any:
        index, seed = key
        with seeded(seed):
            return self.dataset[index]


def read(
    dataset: Dataset[Any], parts: Sequence[Sequence[Key]], device: torch.device, workers: int
) -> Iterator[Batch]:
    """Read batches of samples, given the keys of each."""
    loader = DataLoader(
        Seeded(dataset),
        batch_sampler=parts,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # Its own, lest the loader draw from the global stream when it starts.
        generator=torch.Generator().manual_seed(0),
    )
    try:
        for inputs, targets in loader:
            yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
    except ExperimentError as error:
        # From another process it arrives with that one's traceback before it.
        raise ExperimentError(str(error).rpartition("ExperimentError: ")[2].strip()) from error
