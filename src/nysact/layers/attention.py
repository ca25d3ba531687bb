"""The projections inside ``nn.MultiheadAttention``, which calls no submodule for them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.registry import register

_INPUTS = ("query", "key", "value")


@register(nn.MultiheadAttention)
class InProjectionAdapter(LayerAdapter):
    """The projections of some inputs, stored as one weight: one group per input.

    If keys or values have a size of their own, the module stores three weights, and each is a
    layer; the bias that they share then gets the plain update. The output projection reads what
    attention computes inside one function, so its input can't be captured.
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
        return [cls([name]) for name in _INPUTS] if apart else (cls(),)

    def geometry(self, module: nn.Module) -> Geometry:
        rows, columns = getattr(module, self.weight_name).shape
        return Geometry(len(self._inputs), rows // len(self._inputs), columns)

    def inputs(self, module: Any, call: Call) -> tuple[Tensor, ...]:
        tensors = [call.argument(_INPUTS.index(name), name) for name in self._inputs]
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            return ()
        return tuple(_samples_first(tensor, module.batch_first) for tensor in tensors)


def _samples_first(tensor: Tensor, batch_first: bool) -> Tensor:
    if tensor.ndim == 2:
        return tensor.unsqueeze(0)
    return tensor if batch_first else tensor.transpose(0, 1)
