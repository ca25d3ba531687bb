"""The vision transformer of timm, in any size, for small images."""

from torch import nn


def vit(
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    drop_path: float = 0.0,
) -> nn.Module:
    """Make timm's VisionTransformer, of which DeiT-S is a larger one.

    Args:
        classes: Number of classes.
        in_channels: Channels of the images.
        image_size: Pixels on each side, a multiple of ``patch``.
        patch: Pixels on each side of a patch.
        width: Features of a token, a multiple of ``heads``.
        depth: Number of transformer blocks.
        heads: Attention heads of a block.
        drop_path: Rate of the stochastic depth at the last block, growing from 0 at the first.

    Returns:
        The network, untrained.

    Raises:
        ValueError: If patches don't fill the image, or the heads don't divide the width.
    """
    if image_size % patch:
        raise ValueError(f"image_size={image_size}: expected a multiple of patch={patch}")
    if width % heads:
        raise ValueError(f"width={width}: expected a multiple of heads={heads}")
    from timm.models.vision_transformer import VisionTransformer

    model: nn.Module = VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=in_channels,
        num_classes=classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        drop_path_rate=drop_path,
    )
    return model
