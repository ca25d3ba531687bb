"""The share of the weights of well-known models that is preconditioned: a table in Markdown.

Models are built without values, on the meta device, so that their size costs nothing.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import torchvision
import transformers
from torch import nn

from nysact.engine.discovery import Discovery

VISION = {
    "ResNet-50": "resnet50",
    "MobileNetV3-L": "mobilenetv3_large_100",
    "EfficientNetV2-S, padded as TensorFlow does": "tf_efficientnetv2_s",
    "NFNet-L0, weights standardised": "nfnet_l0",
    "ResNetV2-50 (BiT), weights standardised": "resnetv2_50x1_bit",
    "ConvNeXt-T": "convnext_tiny",
    "DeiT-S": "deit_small_patch16_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
}
# The default configuration of each has the size of the model in the first column.
LANGUAGE = {
    "GPT-2": "GPT2LMHeadModel",
    "BERT-base": "BertForMaskedLM",
    "T5-small": "T5ForConditionalGeneration",
    "Llama-2-7B": "LlamaForCausalLM",
    "Mixtral-8x7B": "MixtralForCausalLM",
    "Qwen3-MoE, default configuration": "Qwen3MoeForCausalLM",
    "GPT-OSS-120B": "GptOssForCausalLM",
}


class Coverage(NamedTuple):
    """Numbers of parameters: all, the preconditioned ones, the others by the module they are in."""

    parameters: int
    preconditioned: int
    layers: int
    left_out: Counter[str]


def coverage(model: nn.Module) -> Coverage:
    """Count what an optimizer of the whole model would precondition."""
    found = Discovery(model, [{"params": [*model.parameters()], "precondition": True}])
    layers = set(found.layers.values())
    served = {param for layer in layers for param in (layer.weight, layer.bias)} - {None}
    left_out: Counter[str] = Counter()
    owners = {
        param: type(module).__name__
        for module in reversed([*model.modules()])
        for param in module.parameters(recurse=False)
    }
    for param, owner in owners.items():
        left_out[owner] += 0 if param in served else param.numel()
    total = sum(param.numel() for param in owners)
    return Coverage(total, total - left_out.total(), len(layers), left_out)


def models() -> dict[str, tuple[str, Callable[[], nn.Module]]]:
    """Name of each row to the class or model behind it, and its constructor."""

    def language(name: str) -> Any:
        kind = getattr(transformers, name)
        return kind(kind.config_class())

    rows: dict[str, tuple[str, Callable[[], nn.Module]]] = {}
    for title, name in VISION.items():
        rows[title] = f"timm `{name}`", lambda name=name: timm.create_model(name)
    title = "ViT-B/16 on `nn.MultiheadAttention`"
    rows[title] = "torchvision `vit_b_16`", torchvision.models.vit_b_16
    for title, name in LANGUAGE.items():
        rows[title] = f"transformers `{name}`", lambda name=name: language(name)
    return rows


def row(title: str, source: str, found: Coverage) -> str:
    """One line of the table, with the two largest kinds of module that are left out."""
    largest = [
        f"{kind} {count / found.parameters:.1%}"
        for kind, count in found.left_out.most_common(2)
        if count / found.parameters >= 0.0005
    ]
    share = f"**{found.preconditioned / found.parameters:.1%}**"
    cells = [title, source, size(found.parameters), str(found.layers), share, ", ".join(largest)]
    return f"| {' | '.join(cells)} |"


def size(count: int) -> str:
    """A number of parameters as people write it."""
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def table() -> str:
    """The whole table."""
    lines = [
        "| model | built as | parameters | layers | preconditioned | largest part left out |",
        "|---|---|---|---|---|---|",
    ]
    for title, (source, build) in models().items():
        with torch.device("meta"):
            model = build()
        lines.append(row(title, source, coverage(model)))
    return "\n".join(lines)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    print(table())
