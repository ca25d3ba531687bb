"""Small images that are augmented one at a time, as a loader reads them."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nysact.experiments.config.data import ImageData
from nysact.experiments.data.augment import eraser
from nysact.experiments.data.images import Data
from nysact.experiments.data.policy import policy


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """The training images, each augmented whenever it is read."""

    def __init__(self, images: Data, data: ImageData) -> None:
        self.images = images.train
        self.transform = transform_of(images, data)

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


def transform_of(images: Data, data: ImageData) -> Any:
    """Make the augmentation of a training image by torchvision and timm."""
    from torchvision.transforms import v2

    steps: list[Any] = []
    if data.crop:
        side = images.train.images.shape[-1]
        steps.append(v2.RandomCrop(side, padding=data.crop, fill=list(images.black)))
    if data.flip:
        steps.append(v2.RandomHorizontalFlip())
    if data.augmentation is not None:
        steps.append(policy_on_pixels(images, data, data.augmentation))
    if data.random_erasing:
        steps.append(eraser(data.random_erasing, data.erase_with))
    return v2.Compose(steps or [v2.Identity()])


def policy_on_pixels(images: Data, data: ImageData, name: str) -> OnPixels:
    """Make the augmentation policy of a name for standardised images."""
    channels, _, side = images.train.images.shape[1:]
    black, white = (
        torch.tensor(pixel).expand(channels).view(-1, 1, 1)
        for pixel in (images.black, images.white)
    )
    # The mean pixel of standardised images is 0.
    grey = (-black / (white - black) * 255).round().int().flatten().tolist()
    return OnPixels(policy(name, data.interpolation, side, grey), black, white)
