"""The projections inside ``nn.MultiheadAttention``, which calls no submodule for them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import DenseMap
from nysact.layers.registry import register

_INPUTS = ("query", "key", "value")


@register(nn.MultiheadAttention)
class InProjectionAdapter(LayerAdapter):
    """The projections of query, key and value stored as one weight: three groups.

    Where key or value have a size of their own, the module stores three weights and each is a
    layer of its own; their common bias then gets the plain update. The output projection reads
    what attention computes inside one function and can't be observed.
    """

    weight_name = "in_proj_weight"
    bias_name: str | None = "in_proj_bias"
    uncalled = ("out_proj",)

    @classmethod
    def parts(cls, module: nn.Module) -> Sequence[LayerAdapter]:
        """See :meth:`LayerAdapter.parts`."""
        if module._parameters.get(cls.weight_name) is not None:
            return (cls(),)
        return [_SingleProjectionAdapter(place) for place in range(len(_INPUTS))]

    def geometry(self, module: nn.Module) -> Geometry:
        """See :meth:`LayerAdapter.geometry`."""
        assert isinstance(module, nn.MultiheadAttention)
        return Geometry(len(_INPUTS), module.embed_dim, module.embed_dim)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """See :meth:`LayerAdapter.inputs`; samples come first whatever ``batch_first`` says."""
        assert isinstance(module, nn.MultiheadAttention)
        tensors = [call.argument(place, name) for place, name in enumerate(_INPUTS)]
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            return ()
        return tuple(_samples_first(tensor, module.batch_first) for tensor in tensors)

    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """See :meth:`LayerAdapter.positions`."""
        del module
        return max(1, inputs[0].shape[1])

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> DenseMap:
        """See :meth:`LayerAdapter.linear_map`."""
        del module, call
        return DenseMap(inputs, bias=bias)


class _SingleProjectionAdapter(InProjectionAdapter):
    """One of three projections whose weights are stored apart."""

    bias_name = None

    def __init__(self, place: int) -> None:
        self._place = place
        self.weight_name = f"{_INPUTS[place][0]}_proj_weight"
        self.suffix = self.weight_name

    def geometry(self, module: nn.Module) -> Geometry:
        """See :meth:`LayerAdapter.geometry`."""
        weight = module._parameters[self.weight_name]
        assert weight is not None
        return Geometry(1, *weight.shape)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """See :meth:`LayerAdapter.inputs`."""
        return super().inputs(module, call)[self._place : self._place + 1]


def _samples_first(tensor: Tensor, batch_first: bool) -> Tensor:
    if tensor.ndim == 2:
        return tensor.unsqueeze(0)
    return tensor if batch_first else tensor.transpose(0, 1)
