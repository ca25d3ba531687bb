"""Sets of small images that are kept in memory, and the choice of parts of them."""

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
    """A training and a test set of one source, and samples held out of the training set."""

    train: ImageSet
    test: ImageSet
    black: tuple[float, ...] = (0.0,)  # a black pixel, for each channel or for all
    white: tuple[float, ...] = (1.0,)  # a pixel of full brightness
    validation: ImageSet | None = None

    def of_sizes(
        self, train: int | None = None, test: int | None = None, validation: int = 0
    ) -> "Data":
        """Keep random parts of the sets (``None`` for all), always the same ones."""
        # The samples that are kept are those that would be kept if none were held out.
        rest, held_out = held_out_of(len(self.train), validation)
        kept = part_of(self.train, rest, train, "train")
        tests = part_of(self.test, fixed_order(len(self.test)), test, "test")
        others = self.train.subset(held_out) if validation else None
        return replace(self, train=kept, test=tests, validation=others)


def part_of(images: ImageSet, order: Tensor, size: int | None, name: str) -> ImageSet:
    """Keep the first samples of an order; all of a set stay in their own."""
    if size is not None and not 1 <= size <= len(order):
        raise ExperimentError(
            f"{name} size {size}: the {name} set has {len(order)} samples; choose a size from 1 to "
            f"{len(order)}"
        )
    whole = size is None and len(order) == len(images)
    return images if whole else images.subset(order[:size])


def fixed_order(samples: int) -> Tensor:
    """Give the random order in which parts of a set are chosen, always the same one."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0))


def held_out_of(samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Split indices into those for training and the last of the fixed order, held out."""
    if size >= samples:
        raise ExperimentError(
            f"data.validation_size={size}: the training set has {samples} samples; hold out fewer"
        )
    rest, held_out = fixed_order(samples).split([samples - size, size])
    return rest, held_out


def standardised(train: ImageSet, test: ImageSet, white: float = 1.0) -> Data:
    """Shift and scale both sets, in which black is 0, by mean and deviation of training pixels."""
    std, mean = torch.std_mean(train.images)
    train, test = (ImageSet((part.images - mean) / std, part.labels) for part in (train, test))
    return Data(train, test, (float(-mean / std),), (float((white - mean) / std),))
