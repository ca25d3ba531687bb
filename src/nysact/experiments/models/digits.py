"""A network for digits of 8x8 pixels."""

from torch import nn

from nysact.experiments.models.resnet import conv3x3


def digits_network(classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Make a small convolutional network for 8x8 images.

    Args:
        classes: Number of classes.
        in_channels: Channels of the images.

    Returns:
        The network, with 56,554 parameters for 10 classes of one-channel images.
    """
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
