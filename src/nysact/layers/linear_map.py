"""What a layer's linear map does to a matrix of probes, without its rows ever being written out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._guards import detect_fake_mode


class LinearMap(ABC):
    """The linear map ``L`` that one batch of inputs induces on a layer's weight.

    Row ``a`` of ``L`` is what one output position reads: the inputs in its receptive field and,
    with a bias, a last entry of 1. The covariance of those rows is ``L^T L / rows``; a sketch of
    it needs the two products below and nothing of size ``fan_in x fan_in``.

    Attributes:
        rows: Number of rows in each group, one entry a group.
        samples: Number of samples that the rows come from.
    """

    rows: Sequence[int]
    samples: int

    @abstractmethod
    def apply(self, probes: Tensor) -> Tensor:
        """Multiply ``L`` by probes.

        Args:
            probes: ``(groups, d, r)``, bias row last.

        Returns:
            ``L @ probes`` in whatever layout :meth:`adjoint` reads.
        """

    @abstractmethod
    def adjoint(self, products: Tensor) -> Tensor:
        """Multiply the transpose of ``L`` by the outcome of :meth:`apply`.

        Args:
            products: What :meth:`apply` returned.

        Returns:
            ``L^T @ products``, ``(groups, d, r)``.
        """

    @abstractmethod
    def squared_norm(self) -> Tensor:
        """Sum of the squared row norms, the trace of ``L^T L``.

        Returns:
            One value a group, ``(groups,)``.
        """

    def sketch(self, probes: Tensor) -> Tensor:
        """Sketch the unnormalised covariance.

        Args:
            probes: ``(groups, d, r)``, bias row last.

        Returns:
            ``L^T L @ probes``, ``(groups, d, r)``.
        """
        return self.adjoint(self.apply(probes))

    @abstractmethod
    def row_sum(self) -> Tensor:
        """Sum the rows.

        Returns:
            ``(groups, d)``.
        """

    @abstractmethod
    def sample_means(self) -> Tensor:
        """Average the rows of each sample.

        Returns:
            ``(groups, samples, d)``.
        """

    @abstractmethod
    def covariance(self) -> Tensor:
        """Compute the unnormalised covariance itself, from rows that are written out.

        Returns:
            ``L^T L``, ``(groups, d, d)``.
        """


class DenseMap(LinearMap):
    """The map of a fully connected layer: its rows are the inputs themselves.

    Args:
        inputs: One tensor a group, each ``(samples, ..., fan_in)``; what lies between may differ.
        bias: Whether every row ends in a constant 1.
    """

    def __init__(self, inputs: Sequence[Tensor], *, bias: bool) -> None:
        self._inputs = [tensor.flatten(0, -2) for tensor in inputs]
        self._bias = bias
        self.rows = [matrix.shape[0] for matrix in self._inputs]
        self.samples = inputs[0].shape[0]

    def apply(self, probes: Tensor) -> Tensor:
        """See :meth:`LinearMap.apply`; the products of all groups are stacked along the rows."""
        return torch.cat(
            [self._apply(matrix, probe) for matrix, probe in zip(self._inputs, probes, strict=True)]
        )

    def _apply(self, matrix: Tensor, probe: Tensor) -> Tensor:
        if not self._bias:
            return matrix @ probe
        return torch.addmm(probe[-1], matrix, probe[:-1])

    def adjoint(self, products: Tensor) -> Tensor:
        """See :meth:`LinearMap.adjoint`."""
        parts = products.split(list(self.rows))
        return torch.stack([self._adjoint(m, p) for m, p in zip(self._inputs, parts, strict=True)])

    def _adjoint(self, matrix: Tensor, product: Tensor) -> Tensor:
        sketch = matrix.T @ product
        return torch.cat([sketch, product.sum(0, keepdim=True)]) if self._bias else sketch

    def squared_norm(self) -> Tensor:
        """See :meth:`LinearMap.squared_norm`."""
        ones = [len(matrix) if self._bias else 0 for matrix in self._inputs]
        norms = [torch.linalg.vector_norm(matrix).square() for matrix in self._inputs]
        return torch.stack([norm + one for norm, one in zip(norms, ones, strict=True)])

    def row_sum(self) -> Tensor:
        """See :meth:`LinearMap.row_sum`."""
        return torch.stack([self._with_ones(matrix).sum(0) for matrix in self._inputs])

    def sample_means(self) -> Tensor:
        """See :meth:`LinearMap.sample_means`."""
        means = [m.reshape(self.samples, -1, m.shape[-1]).mean(1) for m in self._inputs]
        return torch.stack([self._with_ones(mean) for mean in means])

    def covariance(self) -> Tensor:
        """See :meth:`LinearMap.covariance`."""
        rows = [self._with_ones(matrix) for matrix in self._inputs]
        return torch.stack([matrix.T @ matrix for matrix in rows])

    def _with_ones(self, matrix: Tensor) -> Tensor:
        return F.pad(matrix, (0, 1), value=1.0) if self._bias else matrix


@dataclass(frozen=True)
class Convolution:
    """The arithmetic of a convolution, transposed or not, in any number of dimensions.

    Attributes:
        kernel_size: Extent of the kernel a dimension.
        stride: Step of the kernel (of the output, if transposed) a dimension.
        padding: Zeros added (output taken off, if transposed) on both sides of a dimension.
        dilation: Spacing of the kernel's elements a dimension.
        groups: Number of groups of channels.
        transposed: Whether this is a transposed convolution.
        output_padding: Size added to one side of the output, transposed convolutions only.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    output_padding: tuple[int, ...]

    def forward(
        self, inputs: Tensor, filters: Tensor, bias: Tensor | None = None, *, groups: int = 0
    ) -> Tensor:
        """Convolve.

        Args:
            inputs: ``(samples, channels, *positions)``.
            filters: In the layout of the layer's own weight.
            bias: One value an output channel, or none.
            groups: Number of groups, the layer's own by default.

        Returns:
            ``(samples, output channels, *output positions)``.
        """
        return torch.convolution(
            inputs,
            filters,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            groups or self.groups,
        )

    def weight_gradient(self, inputs: Tensor, outputs: Tensor, filters: Tensor) -> Tensor:
        """Apply the transpose of ``filters -> forward(inputs, filters)``.

        Args:
            inputs: ``(samples, channels, *positions)``.
            outputs: In the shape that :meth:`forward` returns.
            filters: Any tensor of the filters' shape; its values are not read.

        Returns:
            A tensor of the filters' shape.
        """
        return self._backward(outputs, inputs, filters, self.groups, [False, True, False])[1]

    def uses(self, positions: Sequence[int], like: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Count how often each input position is read.

        Args:
            positions: Input positions a dimension.
            like: Gives dtype and device.

        Returns:
            The counts in the shape of one channel, and the output positions a dimension.
        """
        channel = like.new_zeros(1, 1, *positions)
        window = like.new_ones(1, 1, *self.kernel_size)
        outputs = self.forward(channel, window, groups=1)
        counts = self._backward(outputs + 1, channel, window, 1, [True, False, False])[0]
        return counts[0, 0], tuple(outputs.shape[2:])

    def _backward(
        self, outputs: Tensor, inputs: Tensor, filters: Tensor, groups: int, wanted: list[bool]
    ) -> list[Tensor]:
        gradients: list[Tensor] = torch.ops.aten.convolution_backward(
            outputs,
            inputs,
            filters,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            groups,
            wanted,
        )
        return gradients


class ConvolutionMap(LinearMap):
    """The map of a convolution: probes are its filters, the adjoint its weight gradient.

    Args:
        inputs: ``(samples, channels, *positions)``, padded already where the padding is not zeros.
        convolution: The layer's arithmetic.
        bias: Whether every row ends in a constant 1.
    """

    def __init__(self, inputs: Tensor, convolution: Convolution, *, bias: bool) -> None:
        self._inputs = inputs
        self._convolution = convolution
        self._bias = bias
        self.samples = inputs.shape[0]
        if torch.compiler.is_compiling() or detect_fake_mode(inputs) is not None:
            # Tensors of a trace mean nothing outside it.
            uses = convolution.uses(inputs.shape[2:], inputs)
        else:
            uses = _cached_uses(convolution, inputs.shape[2:], inputs.dtype, inputs.device)
        self._counts, self._positions = uses
        self.rows = [math.prod(self._positions) * inputs.shape[0]] * convolution.groups

    def apply(self, probes: Tensor) -> Tensor:
        """See :meth:`LinearMap.apply`; the products are a convolution's output."""
        fan_in = probes.shape[1] - self._bias
        filters = self._to_filters(probes[:, :fan_in])
        bias = probes[:, -1].reshape(-1) if self._bias else None
        return self._convolution.forward(self._inputs, filters, bias)

    def adjoint(self, products: Tensor) -> Tensor:
        """See :meth:`LinearMap.adjoint`."""
        groups = self._convolution.groups
        columns = products.shape[1] // groups
        # The kernel reads the template's shape alone.
        template = products.new_empty(1).expand(self._filter_shape(columns))
        filters = self._convolution.weight_gradient(self._inputs, products, template)
        sketch = self._from_filters(filters, columns)
        if not self._bias:
            return sketch
        constant = products.transpose(0, 1).reshape(groups, columns, -1).sum(-1)
        return torch.cat([sketch, constant.unsqueeze(1)], dim=1)

    def squared_norm(self) -> Tensor:
        """See :meth:`LinearMap.squared_norm`."""
        weighted = self._inputs.square().mul_(self._counts)
        groups = self._convolution.groups
        norms = weighted.sum().reshape(1) if groups == 1 else _sum_by_group(weighted, groups)
        return norms + self.rows[0] if self._bias else norms

    def row_sum(self) -> Tensor:
        """See :meth:`LinearMap.row_sum`."""
        groups = self._convolution.groups
        ones = self._inputs.new_ones(1).expand(self.samples, groups, *self._positions)
        return self.adjoint(ones.contiguous()).squeeze(-1)

    def sample_means(self) -> Tensor:
        """See :meth:`LinearMap.sample_means`."""
        return self._windows().mean(-1)

    def covariance(self) -> Tensor:
        """See :meth:`LinearMap.covariance`."""
        rows = self._windows().transpose(1, 2).flatten(2)
        return rows @ rows.mT

    def _windows(self) -> Tensor:
        """Read every window out with identity filters: ``(groups, samples, d, positions)``."""
        groups, channels = self._convolution.groups, self._inputs.shape[1]
        dim = channels // groups * math.prod(self._convolution.kernel_size) + self._bias
        identity = torch.eye(dim, dtype=self._inputs.dtype, device=self._inputs.device)
        windows = self.apply(identity.expand(groups, -1, -1)).flatten(2)
        return windows.reshape(self.samples, groups, dim, -1).transpose(0, 1)

    def _filter_shape(self, columns: int) -> tuple[int, ...]:
        """Shape of the layer's weight if it had ``columns`` outputs a group."""
        convolution, channels = self._convolution, self._inputs.shape[1]
        if convolution.transposed:
            return (channels, columns, *convolution.kernel_size)
        return (
            convolution.groups * columns,
            channels // convolution.groups,
            *convolution.kernel_size,
        )

    def _to_filters(self, probes: Tensor) -> Tensor:
        """Lay out ``(groups, fan_in, r)`` as the layer's weight with r outputs a group."""
        columns = probes.shape[-1]
        if self._convolution.transposed:
            probes = probes.reshape(self._inputs.shape[1], -1, columns)
        return probes.transpose(1, 2).reshape(self._filter_shape(columns))

    def _from_filters(self, filters: Tensor, columns: int) -> Tensor:
        """The inverse of :meth:`_to_filters`."""
        groups = self._convolution.groups
        if self._convolution.transposed:
            return filters.flatten(2).transpose(1, 2).reshape(groups, -1, columns)
        return filters.reshape(groups, columns, -1).transpose(1, 2)


@lru_cache(maxsize=64)
def _cached_uses(
    convolution: Convolution, positions: torch.Size, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[int, ...]]:
    """Keep the counts: all batches of one shape, and all layers of one kind, share them."""
    return convolution.uses(positions, torch.empty(0, dtype=dtype, device=device))


def _sum_by_group(values: Tensor, groups: int) -> Tensor:
    """Sum ``(samples, channels, *positions)`` over all but groups of channels."""
    return values.reshape(len(values), groups, -1).sum((0, 2))
