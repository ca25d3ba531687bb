"""The product of a layer's linear map and a matrix of probes, without writing out its rows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nysact.torch_private import is_fake

_backward = torch.ops.aten.convolution_backward


class LinearMap(ABC):
    """The linear map ``L`` that one batch of inputs induces on a layer's weight.

    Row ``a`` of ``L`` holds the inputs that one output position reads and, with a bias, a last
    entry of 1, so there are ``d = fan_in + bias`` columns. The covariance of the rows is
    ``L^T L / rows``; a sketch of it takes two products and nothing of size ``d x d``.
    """

    rows: Sequence[float]  #: Number of rows of each group.
    samples: int  #: Number of samples that the rows come from.

    @abstractmethod
    def apply(self, probes: Tensor) -> Tensor:
        """Multiply ``L`` by probes ``(groups, d, r)``, into a layout that :meth:`adjoint` reads."""

    @abstractmethod
    def adjoint(self, products: Tensor) -> Tensor:
        """Multiply ``L^T`` by the result of :meth:`apply`, ``(groups, d, r)``."""

    @abstractmethod
    def squared_norm(self) -> Tensor:
        """Sum the squared row norms: the trace of ``L^T L``, ``(groups,)``."""

    def sketch(self, probes: Tensor) -> Tensor:
        """Sketch the unnormalised covariance: ``L^T L @ probes``, ``(groups, d, r)``."""
        return self.adjoint(self.apply(probes))

    @abstractmethod
    def row_sum(self) -> Tensor:
        """Sum the rows, ``(groups, d)``."""

    @abstractmethod
    def sample_means(self) -> Tensor:
        """Average the rows of each sample, ``(groups, samples, d)``."""

    @abstractmethod
    def covariance(self) -> Tensor:
        """Write out the rows and compute ``L^T L``, ``(groups, d, d)``."""


class DenseMap(LinearMap):
    """The map of a fully connected layer: its rows are the inputs themselves.

    Args:
        inputs: One tensor per group, ``(samples, ..., fan_in)``; the middle sizes may differ.
        bias: Whether every row ends in a constant 1.
    """

    def __init__(self, inputs: Sequence[Tensor], *, bias: bool) -> None:
        self._inputs = [tensor.flatten(0, -2) for tensor in inputs]
        self._bias = bias
        self.rows = [len(matrix) for matrix in self._inputs]
        self.samples = inputs[0].shape[0]

    def apply(self, probes: Tensor) -> Tensor:
        # The groups' products one above the other: (all rows, r).
        return torch.cat([self._apply(m, p) for m, p in zip(self._inputs, probes, strict=True)])

    def _apply(self, matrix: Tensor, probe: Tensor) -> Tensor:
        return torch.addmm(probe[-1], matrix, probe[:-1]) if self._bias else matrix @ probe

    def adjoint(self, products: Tensor) -> Tensor:
        parts = products.split([len(matrix) for matrix in self._inputs])
        return torch.stack([self._adjoint(m, p) for m, p in zip(self._inputs, parts, strict=True)])

    def _adjoint(self, matrix: Tensor, product: Tensor) -> Tensor:
        sketch = matrix.T @ product
        return torch.cat([sketch, product.sum(0, keepdim=True)]) if self._bias else sketch

    def squared_norm(self) -> Tensor:
        norms = [torch.linalg.vector_norm(m).square() + self._bias * len(m) for m in self._inputs]
        return torch.stack(norms)

    def row_sum(self) -> Tensor:
        return torch.stack([self._with_ones(matrix).sum(0) for matrix in self._inputs])

    def sample_means(self) -> Tensor:
        means = [m.reshape(self.samples, -1, m.shape[-1]).mean(1) for m in self._inputs]
        return torch.stack([self._with_ones(mean) for mean in means])

    def covariance(self) -> Tensor:
        rows = [self._with_ones(matrix) for matrix in self._inputs]
        return torch.stack([matrix.T @ matrix for matrix in rows])

    def _with_ones(self, matrix: Tensor) -> Tensor:
        return F.pad(matrix, (0, 1), value=1.0) if self._bias else matrix


class Convolution(NamedTuple):
    """The arithmetic of a convolution in any number of dimensions, in the terms of torch."""

    kernel_size: tuple[int, ...]
    # From here on in the order of torch.convolution.
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def forward(self, inputs: Tensor, filters: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve ``(samples, channels, *positions)`` with filters in the weight's layout."""
        return torch.convolution(inputs, filters, bias, *self[1:])

    def weight_gradient(self, inputs: Tensor, outputs: Tensor, filters: Tensor) -> Tensor:
        """Apply the transpose of ``filters -> forward(inputs, filters)``, reading their shape."""
        wanted = [False, True, False]
        return cast(Tensor, _backward(outputs, inputs, filters, None, *self[1:], wanted)[1])

    def uses(self, positions: Sequence[int], like: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Count how often each input position is read, and return the output positions too."""
        ungrouped = self._replace(groups=1)
        channel, window = like.new_zeros(1, 1, *positions), like.new_ones(1, 1, *self.kernel_size)
        outputs = ungrouped.forward(channel, window)
        wanted = [True, False, False]
        counts = _backward(outputs + 1, channel, window, None, *ungrouped[1:], wanted)[0]
        return counts[0, 0], tuple(outputs.shape[2:])


class ConvolutionMap(LinearMap):
    """The map of a convolution: probes are its filters, the adjoint its weight gradient.

    Args:
        inputs: ``(samples, channels, *positions)``, already padded if the padding isn't zeros.
        convolution: The layer's arithmetic.
        bias: Whether every row ends in a constant 1.
    """

    def __init__(self, inputs: Tensor, convolution: Convolution, *, bias: bool) -> None:
        self._inputs, self._convolution, self._bias = inputs, convolution, bias
        self._groups, self._channels = convolution.groups, inputs.shape[1]
        self.samples = inputs.shape[0]
        if torch.compiler.is_compiling() or is_fake(inputs):
            # Tensors of a trace mean nothing outside it.
            uses = convolution.uses(inputs.shape[2:], inputs)
        else:
            uses = _cached_uses(convolution, inputs.shape[2:], inputs.dtype, inputs.device)
        self._counts, self._positions = uses
        self.rows = [math.prod(self._positions) * inputs.shape[0]] * convolution.groups

    def apply(self, probes: Tensor) -> Tensor:
        # The output of the convolution: (samples, groups * r, *output positions).
        fan_in = probes.shape[1] - self._bias
        shape, transposed = self._filter_shape(probes.shape[-1]), self._convolution.transposed
        filters = to_filters(probes[:, :fan_in].mT, shape, transposed=transposed)
        bias = probes[:, -1].reshape(-1) if self._bias else None
        return self._convolution.forward(self._inputs, filters, bias)

    def adjoint(self, products: Tensor) -> Tensor:
        columns = products.shape[1] // self._groups
        # The kernel reads the template's shape alone.
        template = products.new_empty(1).expand(self._filter_shape(columns))
        filters = self._convolution.weight_gradient(self._inputs, products, template)
        transposed = self._convolution.transposed
        sketch = from_filters(filters, self._groups, transposed=transposed).mT
        if not self._bias:
            return sketch
        constant = products.transpose(0, 1).reshape(self._groups, columns, -1).sum(-1)
        return torch.cat([sketch, constant.unsqueeze(1)], dim=1)

    def squared_norm(self) -> Tensor:
        weighted = self._inputs.square().mul_(self._counts)
        grouped = weighted.reshape(self.samples, self._groups, -1, *self._counts.shape)
        norms = grouped.sum([dim for dim in range(grouped.ndim) if dim != 1])
        return norms + self.rows[0] if self._bias else norms

    def row_sum(self) -> Tensor:
        ones = self._inputs.new_ones(1).expand(self.samples, self._groups, *self._positions)
        return self.adjoint(ones.contiguous()).squeeze(-1)

    def sample_means(self) -> Tensor:
        return self._windows().mean(-1)

    def covariance(self) -> Tensor:
        rows = self._windows().transpose(1, 2).flatten(2)
        return rows @ rows.mT

    def _windows(self) -> Tensor:
        """Read every window with identity filters: (groups, samples, d, positions)."""
        kernel, like = self._convolution.kernel_size, self._inputs
        dim = self._channels // self._groups * math.prod(kernel) + self._bias
        identity = torch.eye(dim, dtype=like.dtype, device=like.device)
        windows = self.apply(identity.expand(self._groups, -1, -1)).flatten(2)
        return windows.reshape(self.samples, self._groups, dim, -1).transpose(0, 1)

    def _filter_shape(self, columns: int) -> tuple[int, ...]:
        """Shape of the layer's weight if it had ``columns`` outputs per group."""
        kernel = self._convolution.kernel_size
        if self._convolution.transposed:
            return (self._channels, columns, *kernel)
        return (self._groups * columns, self._channels // self._groups, *kernel)


def to_filters(matrix: Tensor, shape: Sequence[int], *, transposed: bool) -> Tensor:
    """Lay out (groups, out, fan_in) as filters, which begin with the inputs if transposed."""
    if not transposed:
        return matrix.reshape(shape)
    split = matrix.reshape(*matrix.shape[:2], -1, math.prod(shape[2:]))
    return split.transpose(1, 2).reshape(shape)


def from_filters(filters: Tensor, groups: int, *, transposed: bool) -> Tensor:
    """Invert :func:`to_filters`."""
    if not transposed:
        return filters.reshape(groups, -1, filters[0].numel())
    split = filters.reshape(groups, -1, filters.shape[1], filters[0, 0].numel())
    return split.transpose(1, 2).flatten(2)


@lru_cache(maxsize=64)
def _cached_uses(
    convolution: Convolution, positions: torch.Size, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[int, ...]]:
    """Share the counts between batches of one shape and layers of one kind."""
    return convolution.uses(positions, torch.empty(0, dtype=dtype, device=device))
