"""DenseNet-121 in its CIFAR form."""

from torch import nn


def cifar_densenet121(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Make a DenseNet-121 for images of 32x32 pixels.

    Growth 32 and blocks of 6, 12, 24 and 16 layers, as for ImageNet; the stem is one 3x3
    convolution, so that the first block sees the images at full size.

    Args:
        classes: Number of classes.
        in_channels: Channels of the images.

    Returns:
        The network, with 6,956,298 parameters for 10 classes of three-channel images.
    """
    from torchvision.models import DenseNet

    built = DenseNet(growth_rate=32, block_config=(6, 12, 24, 16), num_classes=classes)
    stem = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)
    blocks = list(built.features.named_children())[4:]  # after convolution, norm, ReLU, pooling
    built.features = nn.Sequential()
    for name, module in [("conv0", stem), *blocks]:
        built.features.add_module(name, module)
    model: nn.Module = built
    return model
