"""Augmentation of whole batches of images on the device."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from nysact.experiments.data.images import flipped
from nysact.experiments.randomness import seeded


class Augmentation(Protocol):
    """Draws for all samples of an epoch what happens to them, and then does it to a batch."""

    def draw(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what happens to each sample."""

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Augment a batch by the rows for its samples of what was drawn."""


class InTurn:
    """Does several augmentations, one after the other.

    Args:
        parts: The augmentations, which draw under different names.
    """

    def __init__(self, parts: Sequence[Augmentation]) -> None:
        self.parts = parts

    def draw(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what happens to each sample in each of them."""
        drawn: dict[str, Tensor] = {}
        for part in self.parts:
            drawn.update(part.draw(samples, generator))
        return drawn

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Augment a batch."""
        for part in self.parts:
            images = part.apply(images, drawn)
        return images


class FlipAndCrop:
    """Mirrors images left to right, and crops them out of a frame of black, at random.

    Args:
        flip: Whether to mirror each with probability 1/2.
        crop: Width of the frame in pixels, 0 for no crop.
        black: Value of a black pixel, for each channel or for all.
    """

    def __init__(self, flip: bool, crop: int, black: tuple[float, ...] = (0.0,)) -> None:
        self.flip = flip
        self.crop = crop
        self.black = torch.tensor(black).view(1, -1, 1, 1)

    def draw(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what happens to each sample.

        Args:
            samples: Number of samples.
            generator: A generator on the CPU, so that the outcome doesn't depend on the device.

        Returns:
            Tensors whose first dimension goes over the samples.
        """
        return {
            "mirrored": torch.rand(samples, generator=generator) < 0.5,
            "corner": torch.randint(2 * self.crop + 1, (samples, 2), generator=generator),
        }

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Augment a batch.

        Args:
            images: ``(n, channels, h, w)``.
            drawn: The rows for these samples of what :meth:`draw` returned.

        Returns:
            The images, of the same shape.
        """
        if self.crop:
            corner = drawn["corner"].to(images.device)
            images = cropped(images, corner, self.crop, self.black.to(images))
        if self.flip:
            images = flipped(images, drawn["mirrored"].to(images.device))
        return images


class Erasing:
    """Erases a part of some images, by torchvision; the same part on every device.

    Args:
        probability: Of each image.
        erase_with: What the part is erased with.
    """

    def __init__(self, probability: float, erase_with: Literal["zero", "noise"]) -> None:
        self.probability = probability
        self.erase = eraser(1.0, erase_with)

    def draw(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw which samples lose a part, and a seed for the part of each."""
        return {
            "erased": torch.rand(samples, generator=generator) < self.probability,
            "erasing": torch.randint(2**62, (samples,), generator=generator),
        }

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Erase the parts."""
        images = images.clone()
        for index in drawn["erased"].nonzero().flatten().tolist():
            with seeded(int(drawn["erasing"][index])):
                images[index] = self.erase(images[index])
        return images


def eraser(probability: float, erase_with: Literal["zero", "noise"]) -> Any:
    """Make torchvision's random erasing, a function of one image.

    Args:
        probability: That a part is erased.
        erase_with: What with: the mean pixel, which is 0, or normal noise.

    Returns:
        The function.
    """
    from torchvision.transforms import v2

    return v2.RandomErasing(probability, value="random" if erase_with == "noise" else 0)


def cropped(images: Tensor, corner: Tensor, frame: int, black: Tensor) -> Tensor:
    """Frame images in black, and cut out a part of the former size.

    Args:
        images: ``(n, channels, h, w)``.
        corner: Row and column of the part's first pixel in the framed image, ``(n, 2)``.
        frame: Width of the frame.
        black: Value of a black pixel, ``(1, channels or 1, 1, 1)``.

    Returns:
        The parts, ``(n, channels, h, w)``.
    """
    samples, channels, height, width = images.shape
    device = images.device
    framed = black.expand(samples, channels, height + 2 * frame, width + 2 * frame).clone()
    framed[:, :, frame : frame + height, frame : frame + width] = images
    rows = corner[:, :1] + torch.arange(height, device=device)
    columns = corner[:, 1:] + torch.arange(width, device=device)
    return framed[
        torch.arange(samples, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(1, -1, 1, 1),
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
