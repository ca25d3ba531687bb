"""The networks of the ImageNet experiments, of torchvision and timm."""

from torch import nn

PATCH = 16


def resnet50(classes: int = 1000) -> nn.Module:
    """Make torchvision's ResNet-50, with 25,557,032 parameters for 1,000 classes.

    Args:
        classes: Number of classes.

    Returns:
        The network, untrained.
    """
    from torchvision.models import resnet50

    model: nn.Module = resnet50(num_classes=classes)
    return model


def deit_small(
    classes: int = 1000, in_channels: int = 3, image_size: int = 224, drop_path: float = 0.0
) -> nn.Module:
    """Make timm's DeiT-S with patches of 16x16 pixels: 22,050,664 parameters at its defaults.

    Args:
        classes: Number of classes.
        in_channels: Channels of the images.
        image_size: Pixels on each side, a multiple of 16.
        drop_path: Rate of the stochastic depth at the last block, growing from 0 at the first.

    Returns:
        The network, untrained.

    Raises:
        ValueError: If patches don't fill the image.
    """
    if image_size % PATCH:
        raise ValueError(f"image_size={image_size}: expected a multiple of {PATCH}, such as 224")
    from timm import create_model

    return create_model(
        "deit_small_patch16_224",
        num_classes=classes,
        in_chans=in_channels,
        img_size=image_size,
        drop_path_rate=drop_path,
    )
