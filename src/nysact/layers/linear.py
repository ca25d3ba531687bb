"""Fully connected layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.registry import register


@register(
    nn.Linear,
    # Subclasses with a forward of their own that computes the same.
    "timm.layers.linear.Linear",
    "transformers.models.falcon.modeling_falcon.FalconLinear",
)
class LinearAdapter(LayerAdapter):
    """``nn.Linear`` on inputs with any number of leading dimensions."""

    shows_output = True
    _input_name = "input"

    def geometry(self, module: nn.Module) -> Geometry:
        return Geometry(1, *getattr(module, self.weight_name).shape)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        inputs = call.argument(0, self._input_name)
        if not isinstance(inputs, Tensor):
            return ()
        # A vector becomes a batch of one.
        return (inputs.reshape(1, -1) if inputs.ndim == 1 else inputs,)

    def output_rows(self, module: nn.Module, gradient: Tensor) -> Tensor:
        return gradient.reshape(1, -1, gradient.shape[-1])


@register("transformers.pytorch_utils.Conv1D")
class TransposedLinearAdapter(LinearAdapter):
    """A fully connected layer that stores its weight inputs first, as GPT-2's does."""

    output_dim = 1
    _input_name = "x"

    def geometry(self, module: nn.Module) -> Geometry:
        stored = super().geometry(module)
        return Geometry(1, stored.in_features, stored.out_features)

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        return weight.T.unsqueeze(0)

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        return matrix.squeeze(0).T
