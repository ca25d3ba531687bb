"""Augmentation: of batches on the device, and of one picture at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nysact.experiments.config.data import Augmented, ImageData
from nysact.experiments.data.images import Data
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded

EraseWith = Literal["zero", "noise"]


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """The training images, each augmented whenever it is read."""

    def __init__(self, images: Data, data: ImageData) -> None:
        self.images = images.train
        self.transform = small_image_transform(images, data)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images.images[index]), int(self.images.labels[index])


class OnPixels:
    """Applies a policy, which reads PIL pictures, to standardised tensors."""

    def __init__(self, change: Any, black: Tensor, white: Tensor) -> None:
        self.change, self.black, self.range = change, black, white - black

    def __call__(self, image: Tensor) -> Tensor:
        """Change an image (channels, h, w)."""
        from torchvision.transforms.v2 import functional

        pixels = ((image - self.black) / self.range * 255).round().clamp(0, 255)
        picture = self.change(functional.to_pil_image(pixels.to(torch.uint8)))
        changed: Tensor = functional.pil_to_tensor(picture)
        return changed / 255 * self.range + self.black


def small_image_transform(images: Data, data: ImageData) -> Any:
    """Make the augmentation of a standardised image."""
    from torchvision.transforms import v2

    channels, _, side = images.train.images.shape[1:]
    crops = [v2.RandomCrop(side, padding=data.crop, fill=list(images.black))] if data.crop else []
    if data.augmentation is None:
        return augmented(data, crops)
    black, white = (
        torch.tensor(pixel).expand(channels).view(-1, 1, 1)
        for pixel in (images.black, images.white)
    )
    # The mean pixel of standardised images is 0.
    grey = (-black / (white - black) * 255).round().int().flatten().tolist()
    change = policy(data.augmentation, data.interpolation, side, grey)
    return augmented(data, crops, [OnPixels(change, black, white)])


def augmented(
    data: Augmented, first: Sequence[Any], change: Sequence[Any] = (), last: Sequence[Any] = ()
) -> Any:
    """Put together what happens to a training picture: crop, flip, policy and erasing."""
    from torchvision.transforms import v2

    flips = [v2.RandomHorizontalFlip()] if getattr(data, "flip", False) else []
    erases = [eraser(data.random_erasing, data.erase_with)] if data.random_erasing else []
    return v2.Compose([*first, *flips, *change, *last, *erases] or [v2.Identity()])


def eraser(probability: float, erase_with: EraseWith) -> Any:
    """Make torchvision's random erasing, which writes the mean pixel (0) or normal noise."""
    from torchvision.transforms import v2

    return v2.RandomErasing(probability, value="random" if erase_with == "noise" else 0)


def policy(
    name: str, interpolation: Literal["bilinear", "bicubic"], side: int, grey: Sequence[int]
) -> Any:
    """Make ``"trivial-augment"`` or a policy in timm's notation, a function of a PIL picture."""
    # Imported here: only a policy needs them.
    from PIL import Image
    from torchvision.transforms import InterpolationMode, v2

    if name == "trivial-augment":
        return v2.TrivialAugmentWide(interpolation=InterpolationMode(interpolation))
    from timm.data.auto_augment import rand_augment_transform

    # Translations are relative to the side, the mean pixel fills new area, and without an
    # interpolation timm draws one for each picture.
    settings = {
        "translate_const": int(0.45 * side),
        "img_mean": tuple(grey) if len(grey) > 1 else grey[0],
        "interpolation": Image.Resampling[interpolation.upper()],
    }
    try:
        found = rand_augment_transform(name, settings)
    except (AssertionError, ValueError) as error:
        raise ExperimentError(
            f"data.augmentation={name!r}: expected trivial-augment, or timm's notation of a "
            "RandAugment, such as rand-m9-mstd0.5-inc1"
        ) from error
    for operation in found.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(bits_kept, operation.level_fn)
    return found


def bits_kept(bits_at: Callable[[float, Any], tuple[int]], magnitude: float, settings: Any) -> Any:
    """Keep one bit of a pixel at least; timm may say none, which is an error to Pillow."""
    return (max(1, bits_at(magnitude, settings)[0]),)


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
