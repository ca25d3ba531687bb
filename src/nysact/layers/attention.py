"""The projections inside ``nn.MultiheadAttention``, which calls no submodule for them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import DenseMap
from nysact.layers.registry import register

_INPUTS = ("query", "key", "value")


@register(nn.MultiheadAttention)
class InProjectionAdapter(LayerAdapter):
    """The projections of some inputs, stored as one weight: one group per input.

    If keys or values have a size of their own, the module stores three weights, and each is a
    layer; the bias that they share then gets the plain update.
    """

    weight_name = "in_proj_weight"
    bias_name: str | None = "in_proj_bias"
    uncalled = ("out_proj",)

    def __init__(self, inputs: Sequence[str] = _INPUTS) -> None:
        self._inputs = inputs
        if len(inputs) == 1:
            self.weight_name = self.suffix = f"{inputs[0][0]}_proj_weight"
            self.bias_name = None

    @classmethod
    def parts(cls, module: Any) -> Sequence[LayerAdapter]:
        apart = module.in_proj_weight is None
        projections: list[LayerAdapter] = [cls([name]) for name in _INPUTS] if apart else [cls()]
        if isinstance(getattr(module.out_proj, "weight", None), nn.Parameter):
            projections.append(_OutProjectionAdapter())
        return projections

    def geometry(self, module: nn.Module) -> Geometry:
        rows, columns = getattr(module, self.weight_name).shape
        return Geometry(len(self._inputs), rows // len(self._inputs), columns)

    def inputs(self, module: Any, call: Call) -> tuple[Tensor, ...]:
        tensors = [call.argument(_INPUTS.index(name), name) for name in self._inputs]
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            return ()
        return tuple(_samples_first(tensor, module.batch_first) for tensor in tensors)


class _OutProjectionAdapter(LayerAdapter):
    """The output projection: it reads what attention gives, which is computed again.

    It is computed without dropout, and for the sampled inputs alone.
    """

    weight_name, suffix = "out_proj.weight", "out_proj"
    bias_name: str | None = "out_proj.bias"
    uses_call = False

    def geometry(self, module: Any) -> Geometry:
        return Geometry(1, *module.out_proj.weight.shape)

    def inputs(self, module: Any, call: Call) -> tuple[Tensor, ...]:
        tensors = InProjectionAdapter().inputs(module, call)
        if not tensors or any(hasattr(p, "to_local") for p in module.parameters(recurse=False)):
            return ()  # A shard of the first projections would not do.
        query, key, _ = tensors
        mask = _mask(call, query, (query.shape[1], key.shape[1]), module.num_heads)
        return tensors if mask is None else (*tensors, mask)

    def linear_map(
        self, module: Any, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> DenseMap:
        query, key, value = (tensor.transpose(0, 1) for tensor in inputs[:3])
        mask = None
        if len(inputs) > 3:
            shape = inputs[0].shape[0], module.num_heads, len(query), len(key)
            mask = inputs[3].expand(shape).flatten(0, 1)
        own = {name: param.to(query) for name, param in module.named_parameters(recurse=False)}
        outputs, _ = F.multi_head_attention_forward(
            query,
            key,
            value,
            module.embed_dim,
            module.num_heads,
            own.get("in_proj_weight"),
            own.get("in_proj_bias"),
            own.get("bias_k"),
            own.get("bias_v"),
            module.add_zero_attn,
            0.0,
            torch.eye(module.embed_dim, dtype=query.dtype, device=query.device),
            None,
            training=False,
            need_weights=False,
            attn_mask=mask,
            use_separate_proj_weight=module.in_proj_weight is None,
            q_proj_weight=own.get("q_proj_weight"),
            k_proj_weight=own.get("k_proj_weight"),
            v_proj_weight=own.get("v_proj_weight"),
        )
        return DenseMap([outputs.transpose(0, 1)], bias=bias)


def _mask(call: Call, query: Tensor, sizes: tuple[int, int], heads: int) -> Tensor | None:
    """Both masks of a call as numbers added to the logits, (samples, 1 or heads, 1 or L, S)."""
    padding, mask = call.argument(3, "key_padding_mask"), call.argument(5, "attn_mask")
    masks = []
    if padding is not None:
        masks.append(_additive(padding, query).reshape(-1, 1, 1, sizes[1]))
    if mask is not None:
        masks.append(_additive(mask, query).reshape(-1, heads if mask.ndim == 3 else 1, *sizes))
    return sum(masks[1:], masks[0]).expand(len(query), -1, -1, -1) if masks else None


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


def _samples_first(tensor: Tensor, batch_first: bool) -> Tensor:
    if tensor.ndim == 2:
        return tensor.unsqueeze(0)
    return tensor if batch_first else tensor.transpose(0, 1)
