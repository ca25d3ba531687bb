"""Convolutions, transposed or not, in one to three dimensions."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import (
    Convolution,
    ConvolutionMap,
    LinearMap,
    from_filters,
    to_filters,
)
from nysact.layers.registry import register


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionAdapter(LayerAdapter):
    """Convolutions with any stride, dilation, groups, padding and padding mode."""

    shows_output = True
    convolves = True

    def geometry(self, module: Any) -> Geometry:
        fan_in = module.in_channels // module.groups * math.prod(module.kernel_size)
        return Geometry(module.groups, module.out_channels // module.groups, fan_in)

    def inputs(self, module: Any, call: Call) -> tuple[Tensor, ...]:
        inputs = call.argument(0, "input")
        if not isinstance(inputs, Tensor):
            return ()
        # An input without a sample dimension becomes a batch of one.
        return (inputs if inputs.ndim == len(module.kernel_size) + 2 else inputs.unsqueeze(0),)

    def positions(self, module: Any, inputs: Sequence[Tensor]) -> int:
        # Borders are not counted.
        return max(1, math.prod(inputs[0].shape[2:]) // int(math.prod(module.stride)))

    def output_rows(self, module: Any, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(-len(module.kernel_size))
        rows = flat.reshape(-1, module.groups, module.out_channels // module.groups, flat.shape[-1])
        return rows.permute(1, 0, 3, 2).flatten(1, 2)

    def linear_map(
        self, module: Any, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> LinearMap:
        padded, padding = self._pad(module, inputs[0])
        return ConvolutionMap(padded, _arithmetic(module)._replace(padding=padding), bias=bias)

    def _pad(self, module: Any, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pad where the convolution itself can't, and return the padding that is left to it."""
        sides = self._padding(module, inputs.shape[2:])
        zeros = module.padding_mode == "zeros"
        if zeros and all(before == after for before, after in sides):
            return inputs, tuple(before for before, _ in sides)
        widths = [width for side in reversed(sides) for width in side]
        mode = "constant" if zeros else module.padding_mode
        return F.pad(inputs, widths, mode=mode), (0,) * len(sides)

    def _padding(self, module: Any, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Width of the padding before and after, for each dimension of an input."""
        if module.padding == "same":
            totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        widths = (0,) * len(shape) if module.padding == "valid" else module.padding
        return [(width, width) for width in widths]


@register("timm.layers.conv2d_same.Conv2dSame")
class CeilingConvolutionAdapter(ConvolutionAdapter):
    """Convolutions padded like TensorFlow's: a size n has ceil(n / stride) outputs."""

    def _padding(self, module: Any, shape: Sequence[int]) -> list[tuple[int, int]]:
        sizes = zip(shape, module.stride, module.dilation, module.kernel_size, strict=True)
        totals = [max(0, -(-n // s) * s - s + d * (k - 1) + 1 - n) for n, s, d, k in sizes]
        return [(total // 2, total - total // 2) for total in totals]


@register(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class TransposedConvolutionAdapter(ConvolutionAdapter):
    """Transposed convolutions; a row holds what one output position gathers."""

    output_dim = 1

    def positions(self, module: Any, inputs: Sequence[Tensor]) -> int:
        return max(1, math.prod(inputs[0].shape[2:]) * int(math.prod(module.stride)))

    def linear_map(
        self, module: Any, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> ConvolutionMap:
        arithmetic, size = _arithmetic(module), call.argument(1, "output_size")
        if size is not None:
            padding = _output_padding(arithmetic, inputs[0].shape[2:], size)
            arithmetic = arithmetic._replace(output_padding=padding)
        return ConvolutionMap(inputs[0], arithmetic, bias=bias)

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        return from_filters(weight, geometry.groups, transposed=True)

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        return to_filters(matrix, shape, transposed=True)


def _arithmetic(module: Any) -> Convolution:
    return Convolution(*[getattr(module, name) for name in Convolution._fields])


def _output_padding(
    conv: Convolution, shape: Sequence[int], size: Sequence[int]
) -> tuple[int, ...]:
    """Add to the smallest output as much as the size that a call asks for needs."""
    sizes = zip(shape, conv.stride, conv.padding, conv.dilation, conv.kernel_size, strict=True)
    smallest = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in sizes]
    # The size may begin with samples and channels.
    return tuple(map(operator.sub, list(size)[-len(smallest) :], smallest))
