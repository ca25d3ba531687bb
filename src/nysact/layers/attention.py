"""The projections inside ``nn.MultiheadAttention``, which calls no submodule for them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.registry import register

_INPUTS = ("query", "key", "value")


@register(nn.MultiheadAttention)
class InProjectionAdapter(LayerAdapter):
    """The projections of query, key and value stored as one weight: three groups.

    If keys or values have a size of their own, the module stores three weights, and each is a
    layer; the bias that they share then gets the plain update. The output projection reads what
    attention computes inside one function, so its input can't be captured.
    """

    weight_name = "in_proj_weight"
    bias_name: str | None = "in_proj_bias"
    uncalled = ("out_proj",)

    @classmethod
    def parts(cls, module: nn.Module) -> Sequence[LayerAdapter]:
        if getattr(module, cls.weight_name) is not None:
            return (cls(),)
        return [_SingleProjectionAdapter(index) for index in range(len(_INPUTS))]

    def geometry(self, module: Any) -> Geometry:
        return Geometry(len(_INPUTS), module.embed_dim, module.embed_dim)

    def inputs(self, module: Any, call: Call) -> tuple[Tensor, ...]:
        tensors = [call.argument(index, name) for index, name in enumerate(_INPUTS)]
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            return ()
        return tuple(_samples_first(tensor, module.batch_first) for tensor in tensors)


class _SingleProjectionAdapter(InProjectionAdapter):
    """One of three projections whose weights are stored apart."""

    bias_name = None

    def __init__(self, index: int) -> None:
        self._index = index
        self.weight_name = f"{_INPUTS[index][0]}_proj_weight"
        self.suffix = self.weight_name

    def geometry(self, module: nn.Module) -> Geometry:
        return Geometry(1, *getattr(module, self.weight_name).shape)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        return super().inputs(module, call)[self._index : self._index + 1]


def _samples_first(tensor: Tensor, batch_first: bool) -> Tensor:
    if tensor.ndim == 2:
        return tensor.unsqueeze(0)
    return tensor if batch_first else tensor.transpose(0, 1)
