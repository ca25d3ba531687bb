"""Augmentation of whole batches of images on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nysact.experiments.randomness import seeded

EraseWith = Literal["zero", "noise"]


@dataclass(frozen=True)
class Augmentation:
    """Random crops out of a frame of black, flips and erasing.

    What happens to each sample of an epoch is drawn at its start, on the CPU, so that a batch
    depends neither on the device nor on the batches before it.
    """

    flip: bool = False
    crop: int = 0  # width of the frame in pixels
    black: tuple[float, ...] = (0.0,)  # a black pixel, for each channel or for all
    erasing: float = 0.0  # probability
    erase_with: EraseWith = "zero"

    def draw(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what happens to each sample."""
        drawn = {
            "mirrored": torch.rand(samples, generator=generator) < 0.5,
            "corner": torch.randint(2 * self.crop + 1, (samples, 2), generator=generator),
        }
        if self.erasing:
            drawn["erased"] = torch.rand(samples, generator=generator) < self.erasing
            drawn["erasing_seed"] = torch.randint(2**62, (samples,), generator=generator)
        return drawn

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Augment a batch by the rows that were drawn for its samples."""
        if self.crop:
            images = cropped(images, drawn["corner"].to(images.device), self.crop, self.black)
        if self.flip:
            images = flipped(images, drawn["mirrored"].to(images.device))
        if self.erasing:
            images = self._erased(images, drawn)
        return images

    def _erased(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        images, erase = images.clone(), eraser(1.0, self.erase_with)
        for index in drawn["erased"].nonzero().flatten().tolist():
            with seeded(int(drawn["erasing_seed"][index])):
                images[index] = erase(images[index])
        return images


def eraser(probability: float, erase_with: EraseWith) -> Any:
    """Make torchvision's random erasing, which writes the mean pixel (0) or normal noise."""
    from torchvision.transforms import v2

    return v2.RandomErasing(probability, value="random" if erase_with == "noise" else 0)


def flipped(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror, left to right, the images that a mask (n) of booleans marks."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def cropped(images: Tensor, corner: Tensor, frame: int, black: tuple[float, ...]) -> Tensor:
    """Frame images in black and cut out parts of the same size, whose corners (n, 2) are given."""
    samples, channels, height, width = images.shape
    device = images.device
    pixel = torch.tensor(black).to(images).view(1, -1, 1, 1)
    framed = pixel.expand(samples, channels, height + 2 * frame, width + 2 * frame).clone()
    framed[:, :, frame : frame + height, frame : frame + width] = images
    rows = corner[:, :1] + torch.arange(height, device=device)  # (n, h)
    columns = corner[:, 1:] + torch.arange(width, device=device)  # (n, w)
    sample = torch.arange(samples, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return framed[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
