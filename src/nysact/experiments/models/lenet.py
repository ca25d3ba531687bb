"""LeNet-5."""

from torch import nn


def lenet5(classes: int = 10, in_channels: int = 1, side: int = 32) -> nn.Sequential:
    """Make LeNet-5 with ReLU and max pooling.

    Args:
        classes: Number of classes.
        in_channels: Channels of the images.
        side: Pixels on each side, 28 or 32; images of 28 are padded to 32.

    Returns:
        The network, with 61,706 parameters for 10 classes of one-channel images.

    Raises:
        ValueError: If ``side`` is neither.
    """
    if side not in (28, 32):
        raise ValueError(f"side={side}: LeNet-5 reads images of 28x28 or 32x32 pixels")
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=(32 - side) // 2),
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
