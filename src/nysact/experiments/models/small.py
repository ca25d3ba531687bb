"""Small networks that no library has: LeNet-5, a perceptron, and a network for 8x8 digits."""

from itertools import pairwise

from torch import nn

from nysact.experiments.models.resnet import conv3x3


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
