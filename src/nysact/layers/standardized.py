"""Convolutions that standardise their weight: rows are read without their mean."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nysact.layers.adapter import Call
from nysact.layers.convolution import CeilingConvolutionAdapter, ConvolutionAdapter
from nysact.layers.linear_map import LinearMap
from nysact.layers.registry import register


@register(
    "timm.layers.std_conv.StdConv2d",
    "timm.layers.std_conv.StdConv2dSame",
    "timm.layers.std_conv.ScaledStdConv2d",
    "timm.layers.std_conv.ScaledStdConv2dSame",
    "transformers.models.bit.modeling_bit.WeightStandardizedConv2d",
)
class StandardizedConvolutionAdapter(CeilingConvolutionAdapter):
    """Convolutions with filters ``gain * (w - mean(w)) / std(w)``, one mean and std per output.

    The factor ``gain / std`` scales an output, as a batch norm behind the layer would. Before it,
    the layer multiplies ``w`` by ``x - mean(x)``: it is linear in ``w``, and its rows are those of
    the convolution without their mean. The factor hides the gradient of that product.
    """

    shows_output = False

    def linear_map(
        self, module: Any, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> LinearMap:
        rows = super().linear_map(module, call, inputs, bias=bias)
        return CentredMap(rows, self.geometry(module).in_features, bias=bias)

    def _padding(self, module: Any, shape: Sequence[int]) -> list[tuple[int, int]]:
        grows = getattr(module, "same_pad", False) or getattr(module, "pad", None) is not None
        rule = CeilingConvolutionAdapter if grows else ConvolutionAdapter
        return rule._padding(self, module, shape)


class CentredMap(LinearMap):
    """A map without the mean of each row: ``L C``, where ``C`` takes the mean off a vector.

    Args:
        rows: The map ``L``.
        fan_in: Number of columns whose mean is taken.
        bias: Whether a column for the bias follows, which stays as it is.
    """

    def __init__(self, rows: LinearMap, fan_in: int, *, bias: bool) -> None:
        self._inner, self._fan_in, self._bias = rows, fan_in, bias
        self.rows, self.samples = rows.rows, rows.samples

    def apply(self, probes: Tensor) -> Tensor:
        return self._inner.apply(self._centred(probes, 1))

    def adjoint(self, products: Tensor) -> Tensor:
        return self._centred(self._inner.adjoint(products), 1)

    def squared_norm(self) -> Tensor:
        norms = self._inner.squared_norm()
        ones = F.pad(norms.new_ones(len(norms), self._fan_in, 1), (0, 0, 0, self._bias))
        means = (ones * self._inner.sketch(ones)).sum((1, 2)) / self._fan_in
        return (norms - means).clamp_min(0)

    def row_sum(self) -> Tensor:
        return self._centred(self._inner.row_sum(), 1)

    def sample_means(self) -> Tensor:
        return self._centred(self._inner.sample_means(), 2)

    def covariance(self) -> Tensor:
        return self._centred(self._centred(self._inner.covariance(), 1), 2)

    def _centred(self, values: Tensor, dim: int) -> Tensor:
        columns = values.narrow(dim, 0, self._fan_in)
        mean, centred = columns.mean(dim, keepdim=True), values.clone()
        centred.narrow(dim, 0, self._fan_in).sub_(mean)
        return centred
