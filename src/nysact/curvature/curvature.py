"""The interface of a curvature: what it accumulates and how its inverse acts on a gradient."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nysact.layers.linear_map import LinearMap

Tensors = dict[str, Tensor]
# A number, or one value per layer and group, (layers, groups), in the dtype of the factors.
Damping = float | Tensor


@dataclass(frozen=True)
class Shape:
    """The sizes that a curvature's tensors depend on."""

    groups: int  # each with a covariance of its own
    dim: int  # side of the covariance: the fan-in, plus one with a bias
    rank: int  # of the approximation, at most dim
    out: int = 1  # outputs of a group


class Curvature(ABC):
    """An approximation of the curvature of layers of one shape.

    A curvature keeps no state: the engine stores the tensors that :meth:`statistics` and
    :meth:`initial` name, averages the former over time and passes both back. Tensors stack the
    layers of one shape and begin with ``(layers, groups)``; those of one call of one layer begin
    with ``(groups,)``.
    """

    observes_outputs: bool = False  # whether the gradients of outputs are captured too

    @abstractmethod
    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Name the statistics, which add up over rows and batches, with their sizes."""

    @abstractmethod
    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        """Create the factors of layers without data, in float64 on the CPU; one seed a layer."""

    def restarts(self, shape: Shape) -> bool:
        """Whether statistics depend on the window's probes, so that each window starts at zero."""
        return False

    def carried(self, factors: Tensors, rows: Tensor) -> Tensors:
        """Sums that go on in a new window, by the factors that were just refreshed; else none."""
        return {}

    def probes(self, shape: Shape, factors: Tensors, seeds: Sequence[int]) -> Tensor:
        """Return a window's test matrices, a function of its arguments alone."""
        # (layers, groups, dim, rank), or (layers, 0) where no probes are needed
        return next(iter(factors.values())).new_empty(len(seeds), 0)

    @abstractmethod
    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        """Sum the statistics of one call's inputs, which ``offset`` samples of the step precede."""

    def measure_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensors:
        """Sum the statistics of the output gradients of one call, ``rows`` (groups, rows, out)."""
        return {}

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        """Scale the sums of one step so that those of several batches can be added."""
        # samples: (layers, 1), number of samples behind the loss
        return sums

    def portion(self, totals: Tensors, place: int, count: int) -> Tensors:
        """Prepare the totals of process ``place`` of ``count`` for a sum over processes."""
        return totals

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        """Turn weighted sums of totals into means; ``rows`` (layers, groups) is summed alike."""
        return {name: value / lift(rows, value) for name, value in totals.items()}

    @abstractmethod
    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        """Compute factors from means, and a boolean (layers, groups) that says which are usable."""

    def work(self, shape: Shape) -> float:
        """Estimate the operations that a refresh takes per group, up to a constant."""
        return float(shape.dim * shape.rank**2)

    @abstractmethod
    def mean_eigenvalue(self, factors: Tensors, dim: int) -> Tensor:
        """Compute tr(A) / dim, (layers, groups), of the matrix behind the factors."""

    @abstractmethod
    def action(self, factors: Tensors, damping: Damping, ready: Tensor) -> Tensors:
        """Prepare the damped inverse, once per refresh and damping; identity where not ready."""
        # ready: (layers,) boolean, False for layers that have no factors yet

    @abstractmethod
    def precondition(
        self, weight: Tensor, bias: Tensor | None, action: Tensors
    ) -> tuple[Tensor, Tensor | None]:
        """Multiply gradients by the damped inverse, into new tensors of the same shapes."""
        # weight: (layers, groups, out, fan_in); bias: (layers, groups, out), the last column

    def inverse(self, factors: Tensors, damping: Damping, ready: Tensor, dim: int) -> Tensor:
        """Write out one layer's damped inverse, the right factor of its gradient."""
        # factors: (1, groups, ...); ready: (1,); returns (groups, dim, dim)
        like = next(iter(factors.values()))
        identity = torch.eye(dim, dtype=like.dtype, device=like.device)
        identity = identity.expand(1, like.shape[1], -1, -1)
        return self.precondition(identity, None, self.action(factors, damping, ready))[0].squeeze(0)

    @abstractmethod
    def summary(self, factors: Tensors) -> Tensors:
        """Describe the factors of one layer, which begin with (groups,), for diagnostics."""


class JoinedCurvature(Curvature):
    """A curvature whose action takes the bias as the last column of the gradient."""

    def precondition(
        self, weight: Tensor, bias: Tensor | None, action: Tensors
    ) -> tuple[Tensor, Tensor | None]:
        if bias is None:
            return self.multiply(weight, action), None
        product = self.multiply(torch.cat([weight, bias.unsqueeze(-1)], dim=-1), action)
        return product[..., :-1], product[..., -1]

    @abstractmethod
    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        """Multiply gradients (layers, groups, out, dim) by the damped inverse."""


def lift(values: Tensor, like: Tensor) -> Tensor:
    """Append dimensions of size 1 until ``values`` broadcasts against ``like``."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def lift_damping(damping: Damping, like: Tensor) -> Damping:
    """Let a damping broadcast against ``like``, (layers, groups, ...)."""
    return lift(damping, like) if isinstance(damping, Tensor) else damping


def seeded(seed: int) -> torch.Generator:
    """Create a CPU generator: the same numbers on every device, the global stream untouched."""
    return torch.Generator(device="cpu").manual_seed(seed)
