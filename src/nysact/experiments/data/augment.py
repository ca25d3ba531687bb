"""Augmentation of whole batches of images on the device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nysact.experiments.data.transforms import EraseWith, eraser
from nysact.experiments.randomness import seeded


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


def flipped(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror, left to right, the images that a mask (n) of booleans marks."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def cropped(images: Tensor, corner: Tensor, frame: int, black: tuple[float, ...]) -> Tensor:
    """Frame images in black and cut out parts of the same size, whose corners (n, 2) are given."""
    n, channels, height, width = images.shape
    pixel = torch.tensor(black).to(images).view(1, -1, 1, 1)
    framed = pixel.expand(n, channels, height + 2 * frame, width + 2 * frame).clone()
    framed[:, :, frame : frame + height, frame : frame + width] = images
    sample, channel, row, column = (
        torch.arange(size, device=images.device) for size in images.shape
    )
    rows, columns = corner[:, :1] + row, corner[:, 1:] + column  # (n, h) and (n, w)
    places = sample[:, None, None, None], channel[:, None, None]
    return framed[*places, rows[:, None, :, None], columns[:, None, None, :]]
