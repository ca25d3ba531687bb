"""What a curvature accumulates and how it becomes an action on a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nysact.linear_map import LinearMap

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes that a curvature's tensors depend on.

    Attributes:
        groups: Number of groups, each with a covariance of its own.
        dim: Side of the covariance: the fan-in, one more with a bias.
        rank: Rank of the approximation, at most ``dim``.
        out: Outputs of a group.
    """

    groups: int
    dim: int
    rank: int
    out: int = 1


class Curvature(ABC):
    """An approximation of the activation covariance and the action of its damped inverse.

    All tensors stack layers of one shape: they begin with ``(layers, groups)``. A curvature keeps
    no state of its own: the engine keeps the tensors named by :meth:`statistics` and
    :meth:`initial`, averages the former over time and hands both back.

    Attributes:
        observes_outputs: Whether statistics are taken of the gradients of outputs too.
    """

    observes_outputs: bool = False

    @abstractmethod
    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Name the totals that are kept: sums over rows, and counts beside that of the rows.

        Args:
            shape: The layers' sizes.

        Returns:
            Name to size, without the leading ``(layers, groups)``.
        """

    @abstractmethod
    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        """Give the factors of layers that have seen no data; they aren't acted with.

        Args:
            shape: The layers' sizes.
            seeds: One seed a layer.

        Returns:
            The factors, in float64 on the CPU.
        """

    def restarts(self, shape: Shape) -> bool:
        """Tell whether statistics mean something only with the probes they were taken with.

        Args:
            shape: The layers' sizes.

        Returns:
            Whether their average starts anew with each window.
        """
        del shape
        return False

    def probes(self, shape: Shape, factors: Tensors, seeds: Sequence[int]) -> Tensor:
        """Give the test matrices of a window, the same ones whenever they are asked for.

        Args:
            shape: The layers' sizes.
            factors: The factors in force; they give dtype and device.
            seeds: One seed a layer.

        Returns:
            ``(layers, groups, dim, rank)``; by default there are none, ``(layers, 0)``.
        """
        del shape
        return next(iter(factors.values())).new_empty(len(seeds), 0)

    @abstractmethod
    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        """Take the statistics of one call of one layer.

        Args:
            linear_map: The map that the call's inputs induce.
            probes: ``(groups, dim, rank)``, or nothing where there are none.
            offset: Samples that the layer's earlier calls since the last step contributed.

        Returns:
            Name to the sum over rows, with the leading ``(groups,)``.
        """

    def measure_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensors:
        """Take the statistics of the gradient of one output.

        Args:
            rows: The gradient as rows, ``(groups, rows, out)``.
            samples: Samples that the rows come from.
            offset: Samples that the layer's earlier calls since the last step contributed.

        Returns:
            Name to the sum over rows, with the leading ``(groups,)``.
        """
        del rows, samples, offset
        return {}

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        """Scale the sums of one step so that they add up to those of a union of batches.

        Args:
            sums: What :meth:`measure` and :meth:`measure_outputs` gave, added up.
            samples: Number of samples behind the loss, ``(layers, 1)``.

        Returns:
            All that :meth:`statistics` names, by default the sums as they are.
        """
        del samples
        return sums

    def portion(self, totals: Tensors, place: int, count: int) -> Tensors:
        """Take the part of one process's totals that counts when all processes' are added up.

        Args:
            totals: This process's totals.
            place: Its place among the processes.
            count: Their number.

        Returns:
            Tensors of the same shapes, by default the totals themselves.
        """
        del place, count
        return totals

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        """Turn totals of several steps, and of several processes, into means.

        Args:
            totals: What :meth:`totals` gave, in any sum with weights.
            rows: Number of rows of the inputs in the same sum, ``(layers, groups)``.

        Returns:
            The means, by default over the rows of the inputs.
        """
        return {name: value / lift(rows, value) for name, value in totals.items()}

    @abstractmethod
    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        """Compute factors from averaged statistics.

        Args:
            statistics: Means over rows and time.
            probes: What the statistics were taken with.

        Returns:
            The factors and a boolean ``(layers, groups)``: whether each can be used.
        """

    def work(self, shape: Shape) -> float:
        """Estimate the operations that a refresh takes.

        Args:
            shape: A layer's sizes.

        Returns:
            Operations a group, up to a factor.
        """
        return float(shape.dim * shape.rank**2)

    @abstractmethod
    def action(self, factors: Tensors, damping: float, known: Tensor) -> Tensors:
        """Prepare what :meth:`precondition` multiplies with, once a refresh and damping.

        Args:
            factors: The factors in force.
            damping: Damping rho.
            known: ``(layers,)`` boolean, on the factors' device: a layer that has no factors yet
                keeps its gradient.

        Returns:
            Name to tensor, each beginning with ``layers``.
        """

    @abstractmethod
    def precondition(
        self, weight: Tensor, bias: Tensor | None, action: Tensors
    ) -> tuple[Tensor, Tensor | None]:
        """Multiply gradients by the damped inverse.

        Args:
            weight: ``(layers, groups, out, fan_in)``.
            bias: ``(layers, groups, out)``, the last column of the gradient, or none.
            action: What :meth:`action` gave for these layers.

        Returns:
            The preconditioned gradients, new tensors of the same shapes.
        """

    def inverse(self, factors: Tensors, damping: float, known: Tensor, dim: int) -> Tensor:
        """Write out what gradients are multiplied with from the right.

        Args:
            factors: The factors in force of one layer, with the leading ``(1, groups)``.
            damping: Damping rho.
            known: ``(1,)`` boolean: whether they are used.
            dim: Side of the covariance.

        Returns:
            ``(groups, dim, dim)``.
        """
        like = next(iter(factors.values()))
        identity = torch.eye(dim, dtype=like.dtype, device=like.device)
        identity = identity.expand(1, like.shape[1], -1, -1)
        return self.precondition(identity, None, self.action(factors, damping, known))[0].squeeze(0)

    @abstractmethod
    def summary(self, factors: Tensors) -> Tensors:
        """Describe the factors of one layer for diagnostics.

        Args:
            factors: The factors of one layer, with the leading ``(groups,)``.

        Returns:
            Name to tensor.
        """


class JoinedCurvature(Curvature):
    """A curvature whose action wants the bias as the last column of the gradient."""

    def precondition(
        self, weight: Tensor, bias: Tensor | None, action: Tensors
    ) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Curvature.precondition`."""
        if bias is None:
            return self.multiply(weight, action), None
        product = self.multiply(torch.cat([weight, bias.unsqueeze(-1)], dim=-1), action)
        return product[..., :-1], product[..., -1]

    @abstractmethod
    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        """Multiply gradients by the damped inverse.

        Args:
            gradient: ``(layers, groups, out, dim)``.
            action: What :meth:`action` gave for these layers.

        Returns:
            The preconditioned gradients, a new tensor of the same shape.
        """


def known_or_identity(known: Tensor, matrices: Tensor) -> Tensor:
    """Give the identity to layers that have no factors yet.

    Args:
        known: ``(layers,)`` boolean.
        matrices: ``(layers, groups, n, n)``.

    Returns:
        A tensor of the same shape.
    """
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return torch.where(lift(known, matrices), matrices, identity)


def seeded(seed: int) -> torch.Generator:
    """Make a generator of its own, so that the user's random stream stays where it is.

    Args:
        seed: The seed.

    Returns:
        A generator on the CPU: every device sees the same numbers.
    """
    return torch.Generator().manual_seed(seed)


def lift(values: Tensor, like: Tensor) -> Tensor:
    """Append dimensions of size 1 until ``values`` broadcasts against ``like``.

    Args:
        values: What is to be broadcast.
        like: A tensor with as many dimensions or more.

    Returns:
        A view of ``values``.
    """
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))
