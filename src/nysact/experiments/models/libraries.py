"""Networks of torchvision, timm and transformers, each package imported by its own models."""

from typing import Any

from torch import nn


def resnet50(classes: int = 1000) -> nn.Module:
    """Make torchvision's ResNet-50."""
    from torchvision.models import resnet50

    model: nn.Module = resnet50(num_classes=classes)
    return model


def cifar_densenet121(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Make torchvision's DenseNet-121 with one 3x3 convolution as the stem, for 32x32 pixels."""
    from torchvision.models import DenseNet

    model = DenseNet(growth_rate=32, block_config=(6, 12, 24, 16), num_classes=classes)
    stem = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)
    blocks = list(model.features.named_children())[4:]  # after convolution, norm, ReLU, pooling
    model.features = nn.Sequential()
    for name, module in [("conv0", stem), *blocks]:
        model.features.add_module(name, module)
    return model  # type: ignore[no-any-return]


def deit_small(
    classes: int = 1000, in_channels: int = 3, image_size: int = 224, drop_path: float = 0.0
) -> nn.Module:
    """Make timm's DeiT-S, with stochastic depth whose rate grows to ``drop_path``."""
    check_multiple("image_size", image_size, "16, the side of a patch", 16)
    from timm import create_model

    return create_model(
        "deit_small_patch16_224",
        num_classes=classes,
        in_chans=in_channels,
        img_size=image_size,
        drop_path_rate=drop_path,
    )


def vit(image_size: int, patch: int, width: int, heads: int, **options: Any) -> nn.Module:
    """Make timm's VisionTransformer, of which DeiT-S is a larger one."""
    check_multiple("image_size", image_size, f"patch={patch}", patch)
    check_multiple("width", width, f"heads={heads}", heads)
    from timm.models.vision_transformer import VisionTransformer

    model: nn.Module = VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=options["in_channels"],
        num_classes=options["classes"],
        embed_dim=width,
        depth=options["depth"],
        num_heads=heads,
        drop_path_rate=options["drop_path"],
    )
    return model


def gpt(layers: int, heads: int, width: int, vocabulary: int, **options: Any) -> nn.Module:
    """Make transformers' GPT-2 with a language modelling head, from a configuration."""
    check_multiple("width", width, f"heads={heads}", heads)
    from transformers import GPT2Config, GPT2LMHeadModel

    last = vocabulary - 1  # where GPT-2's own vocabulary has its one special token
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=options["context"],
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), options["dropout"]),
        bos_token_id=last,
        eos_token_id=last,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def check_multiple(name: str, value: int, divisor: str, number: int) -> None:
    """Refuse a size that another one does not divide."""
    if value % number:
        raise ValueError(f"{name}={value}: expected a multiple of {divisor}")
