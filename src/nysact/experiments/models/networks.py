"""Networks that no library has: CIFAR's ResNets, LeNet-5, a perceptron, one for 8x8 digits."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the image size (at stride 1) and has no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters.

    Where the block changes shape, the shortcut takes every second pixel and fills the new
    channels with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.stride, self.new_channels = stride, out_channels - in_channels

    def shortcut(self, x: Tensor) -> Tensor:
        """Bring the input to the output's shape without parameters."""
        if self.stride == 1 and self.new_channels == 0:
            return x
        before = self.new_channels // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, in, h, w) to (n, out, h / stride, w / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet of depth 6 n + 2 in its CIFAR form: three stages of 16, 32 and 64 channels."""

    def __init__(self, depth: int, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 2, 6)
        if blocks < 1 or remainder:
            raise ValueError(f"depth={depth}: expected 6 n + 2 with n >= 1, such as 20, 32 or 110")
        self.conv = conv3x3(in_channels, 16)
        self.norm = nn.BatchNorm2d(16)
        self.stage1 = stage(16, 16, blocks, stride=1)
        self.stage2 = stage(16, 32, blocks, stride=2)
        self.stage3 = stage(32, 64, blocks, stride=2)
        self.head = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to scores (n, classes)."""
        x = F.relu(self.norm(self.conv(images)))
        x = self.stage3(self.stage2(self.stage1(x)))
        scores: Tensor = self.head(x.mean(dim=(2, 3)))
        return scores


def stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Make a row of basic blocks, of which the first changes the shape."""
    first = BasicBlock(in_channels, out_channels, stride)
    rest = [BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def lenet5(classes: int = 10, in_channels: int = 1, image_size: int = 32) -> nn.Sequential:
    """Make LeNet-5 with ReLU and max pooling; images of 28x28 pixels are padded to 32x32."""
    if image_size not in (28, 32):
        raise ValueError(f"image_size={image_size}: LeNet-5 reads images of 28x28 or 32x32 pixels")
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=(32 - image_size) // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def mlp(in_features: int = 784, width: int = 2048, depth: int = 3, classes: int = 10) -> nn.Module:
    """Make a perceptron with ReLU of so many linear layers; samples are flattened."""
    sizes = [in_features, *[width] * (depth - 1), classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digits_network(classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Make a small convolutional network for images of 8x8 pixels."""
    return nn.Sequential(
        *conv_norm_relu(in_channels, 32),
        *conv_norm_relu(32, 64),
        nn.MaxPool2d(2),
        *conv_norm_relu(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def conv_norm_relu(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """Make the three modules of a normalised convolution."""
    return conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU()
