"""Convolutions, transposed or not, in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import Convolution, ConvolutionMap
from nysact.layers.registry import register


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionAdapter(LayerAdapter):
    """Convolutions with any stride, dilation, groups, padding and padding mode."""

    shows_output = True

    def geometry(self, module: nn.Module) -> Geometry:
        """See :meth:`LayerAdapter.geometry`."""
        assert isinstance(module, _ConvNd)
        fan_in = module.in_channels // module.groups * math.prod(module.kernel_size)
        return Geometry(module.groups, module.out_channels // module.groups, fan_in)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """See :meth:`LayerAdapter.inputs`; an input without samples becomes a batch of one."""
        assert isinstance(module, _ConvNd)
        inputs = call.argument(0, "input")
        if not isinstance(inputs, Tensor):
            return ()
        return (inputs if inputs.ndim == len(module.kernel_size) + 2 else inputs.unsqueeze(0),)

    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """See :meth:`LayerAdapter.positions`; borders are not counted."""
        assert isinstance(module, _ConvNd)
        return max(1, math.prod(inputs[0].shape[2:]) // math.prod(module.stride))

    def output_rows(self, module: nn.Module, gradient: Tensor) -> Tensor:
        """See :meth:`LayerAdapter.output_rows`."""
        assert isinstance(module, _ConvNd)
        flat = gradient.flatten(-len(module.kernel_size))
        rows = flat.reshape(-1, module.groups, module.out_channels // module.groups, flat.shape[-1])
        return rows.permute(1, 0, 3, 2).flatten(1, 2)

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> ConvolutionMap:
        """See :meth:`LayerAdapter.linear_map`."""
        assert isinstance(module, _ConvNd)
        del call
        padded, padding = _pad(module, inputs[0])
        return ConvolutionMap(padded, _arithmetic(module, padding), bias=bias)


@register(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class TransposedConvolutionAdapter(ConvolutionAdapter):
    """Transposed convolutions; a row holds what one output position gathers."""

    output_dim = 1

    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """See :meth:`LayerAdapter.positions`; borders are not counted."""
        assert isinstance(module, _ConvTransposeNd)
        return max(1, math.prod(inputs[0].shape[2:]) * math.prod(module.stride))

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> ConvolutionMap:
        """See :meth:`LayerAdapter.linear_map`."""
        assert isinstance(module, _ConvTransposeNd)
        padding = tuple(int(width) for width in module.padding)
        arithmetic = replace(
            _arithmetic(module, padding), output_padding=_output_padding(module, call, inputs[0])
        )
        return ConvolutionMap(inputs[0], arithmetic, bias=bias)

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        """See :meth:`LayerAdapter.to_matrix`; the weight is stored inputs first."""
        grouped = weight.reshape(geometry.groups, -1, geometry.out_features, weight[0, 0].numel())
        return grouped.transpose(1, 2).flatten(2)

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        """See :meth:`LayerAdapter.from_matrix`."""
        grouped = matrix.reshape(geometry.groups, geometry.out_features, -1, math.prod(shape[2:]))
        return grouped.transpose(1, 2).reshape(shape)


def _arithmetic(module: _ConvNd, padding: tuple[int, ...]) -> Convolution:
    return Convolution(
        kernel_size=module.kernel_size,
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
        transposed=module.transposed,
        output_padding=module.output_padding,
    )


def _output_padding(module: _ConvTransposeNd, call: Call, inputs: Tensor) -> tuple[int, ...]:
    """Size that one call adds to the output: the module's own, or what its output_size asks."""
    output_size = call.argument(1, "output_size")
    if output_size is not None:
        # The inputs are a batch by now, while the call's may have been none: keep the positions.
        output_size = list(output_size)[-len(module.kernel_size) :]
    padding = module._output_padding(
        inputs,
        output_size,
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
        module.kernel_size,  # type: ignore[arg-type]
        len(module.kernel_size),
        module.dilation,  # type: ignore[arg-type]
    )
    return tuple(padding)


def _pad(module: _ConvNd, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Pad what the convolution itself can't, and return the padding that is left to it."""
    none = (0,) * len(module.kernel_size)
    if module.padding_mode != "zeros":
        widths = module._reversed_padding_repeated_twice
        return F.pad(inputs, widths, mode=module.padding_mode), none
    if module.padding == "valid":
        return inputs, none
    if module.padding != "same":
        return inputs, tuple(int(width) for width in module.padding)
    before, after = _same_padding(module)
    if before == after:
        return inputs, before
    widths = [
        width for pair in zip(reversed(before), reversed(after), strict=True) for width in pair
    ]
    return F.pad(inputs, widths), none


def _same_padding(module: _ConvNd) -> tuple[tuple[int, ...], tuple[int, ...]]:
    totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
