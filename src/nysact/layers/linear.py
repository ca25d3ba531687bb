"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import DenseMap
from nysact.layers.registry import register


@register(nn.Linear)
class LinearAdapter(LayerAdapter):
    """``nn.Linear`` on inputs with any number of leading dimensions."""

    shows_output = True

    def geometry(self, module: nn.Module) -> Geometry:
        """See :meth:`LayerAdapter.geometry`."""
        out_features, in_features = module._parameters[self.weight_name].shape  # type: ignore[union-attr]
        return Geometry(1, out_features, in_features)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """See :meth:`LayerAdapter.inputs`; a single vector becomes a batch of one."""
        del module
        inputs = call.argument(0, "input")
        if not isinstance(inputs, Tensor):
            return ()
        return (inputs.reshape(1, -1) if inputs.ndim == 1 else inputs,)

    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """See :meth:`LayerAdapter.positions`."""
        del module
        return max(1, inputs[0][0, ..., 0].numel()) if inputs[0].shape[0] else 1

    def output_rows(self, module: nn.Module, gradient: Tensor) -> Tensor:
        """See :meth:`LayerAdapter.output_rows`."""
        del module
        return gradient.reshape(1, -1, gradient.shape[-1])

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> DenseMap:
        """See :meth:`LayerAdapter.linear_map`."""
        del module, call
        return DenseMap(inputs, bias=bias)


@register("transformers.pytorch_utils.Conv1D")
class TransposedLinearAdapter(LinearAdapter):
    """A fully connected layer that stores its weight inputs first, as GPT-2's does."""

    output_dim = 1

    def geometry(self, module: nn.Module) -> Geometry:
        """See :meth:`LayerAdapter.geometry`."""
        stored = super().geometry(module)
        return Geometry(1, stored.in_features, stored.out_features)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """See :meth:`LayerAdapter.inputs`."""
        named = {"input": call.argument(0, "x")}
        return super().inputs(module, Call((), named))

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        """See :meth:`LayerAdapter.to_matrix`."""
        del geometry
        return weight.T.unsqueeze(0)

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        """See :meth:`LayerAdapter.from_matrix`."""
        del geometry, shape
        return matrix.squeeze(0).T
