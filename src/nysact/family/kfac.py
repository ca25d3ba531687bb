"""K-FAC: the covariances of inputs and of output gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import (
    Curvature,
    JoinedCurvature,
    Shape,
    Tensors,
    known_or_identity,
    lift,
    linalg,
)
from nysact.family.two_sided import TwoSidedOptimizer
from nysact.linear_map import LinearMap


class Kronecker(JoinedCurvature):
    """The Kronecker product of the input covariance A and the output gradients' covariance B.

    A is a mean over rows; B is taken of the gradients of each sample's own loss, summed over a
    sample's positions, so that their product is the Fisher matrix of the expand setting.

    Args:
        loss_scale: Gives the factor that the loss was scaled with, at each backward.
    """

    observes_outputs = True

    def __init__(self, loss_scale: Callable[[], float]) -> None:
        self._loss_scale = loss_scale

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """See :meth:`Curvature.statistics`."""
        return {
            "input_covariance": (shape.dim, shape.dim),
            "output_covariance": (shape.out, shape.out),
            "samples": (),
        }

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        """See :meth:`Curvature.initial`."""
        factors = {}
        for side, size in (("input", shape.dim), ("output", shape.out)):
            eigenvalues = torch.zeros(len(seeds), shape.groups, size, dtype=torch.float64)
            factors[f"{side}_basis"] = torch.diag_embed(eigenvalues)
            factors[f"{side}_eigenvalues"] = eigenvalues
        return factors

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        """See :meth:`Curvature.measure`."""
        del probes, offset
        return {"input_covariance": linear_map.covariance()}

    def measure_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensors:
        """See :meth:`Curvature.measure_outputs`."""
        del samples, offset
        rows = rows / self._loss_scale()
        return {"output_covariance": rows.mT @ rows}

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        """See :meth:`Curvature.totals`; a mean loss divides each sample's gradient by N."""
        outputs = sums["output_covariance"]
        scaled = outputs * lift(samples.square(), outputs)
        counts = samples.expand(outputs.shape[:2])
        return {**sums, "output_covariance": scaled, "samples": counts}

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        """See :meth:`Curvature.means`."""
        inputs, outputs = totals["input_covariance"], totals["output_covariance"]
        return {
            "input_covariance": inputs / lift(rows, inputs),
            "output_covariance": outputs / lift(totals["samples"], outputs),
        }

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        """See :meth:`Curvature.refresh`."""
        del probes
        factors: Tensors = {}
        usable = []
        for side in ("input", "output"):
            pairs = linalg.covariance_eigenpairs(statistics[f"{side}_covariance"])
            factors[f"{side}_basis"], factors[f"{side}_eigenvalues"], succeeded = pairs
            usable.append(succeeded)
        return factors, usable[0] & usable[1]

    def work(self, shape: Shape) -> float:
        """See :meth:`Curvature.work`."""
        return float(shape.dim**3 + shape.out**3)

    def action(self, factors: Tensors, damping: float, known: Tensor) -> Tensors:
        """See :meth:`Curvature.action`; the damped inverses of both sides."""
        sides = ("input", "output")
        inputs, outputs = (factors[f"{side}_eigenvalues"] for side in sides)
        damped = damped_eigenvalues(inputs, outputs, damping)
        bases = [factors[f"{side}_basis"] for side in sides]
        dense = [
            (basis / values.unsqueeze(-2)) @ basis.mT
            for basis, values in zip(bases, damped, strict=True)
        ]
        return {s: known_or_identity(known, each) for s, each in zip(sides, dense, strict=True)}

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        """See :meth:`JoinedCurvature.multiply`; multiplies from both sides."""
        return action["output"] @ gradient @ action["input"]

    def inverse(self, factors: Tensors, damping: float, known: Tensor, dim: int) -> Tensor:
        """See :meth:`Curvature.inverse`; the factor that acts on the inputs' side."""
        del dim
        return self.action(factors, damping, known)["input"].squeeze(0)

    def summary(self, factors: Tensors) -> Tensors:
        """See :meth:`Curvature.summary`."""
        eigenvalues = factors["input_eigenvalues"]
        return {
            "eigenvalues": eigenvalues,
            "trace": eigenvalues.sum(-1),
            "output_eigenvalues": factors["output_eigenvalues"],
            "output_trace": factors["output_eigenvalues"].sum(-1),
        }


def damped_eigenvalues(inputs: Tensor, outputs: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Spread the damping over two Kronecker factors by their mean eigenvalues.

    Factored Tikhonov damping of Martens and Grosse (2015), section 6.3: A gets ``pi sqrt(gamma)``
    and B ``sqrt(gamma) / pi``, with pi^2 the ratio of the mean eigenvalues.

    Args:
        inputs: All eigenvalues of A, ``(..., d)``.
        outputs: All eigenvalues of B, ``(..., out)``.
        damping: Damping gamma.

    Returns:
        The damped eigenvalues of both.
    """
    balance = balance_of(inputs.mean(-1), outputs.mean(-1)).unsqueeze(-1)
    root = math.sqrt(damping)
    return inputs + balance * root, outputs + root / balance


def balance_of(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Compute pi of the factored Tikhonov damping, 1 where a factor vanishes.

    Args:
        inputs: Mean eigenvalue of A.
        outputs: Mean eigenvalue of B.

    Returns:
        The square root of their ratio.
    """
    usable = (inputs > 0) & (outputs > 0)
    ratio = torch.where(usable, inputs, 1) / torch.where(usable, outputs, 1)
    return ratio.sqrt()


class KFAC(TwoSidedOptimizer):
    """SGD with momentum on gradients multiplied by the inverse of K-FAC's Fisher approximation.

    Implements K-FAC (Martens and Grosse, "Optimizing neural networks with Kronecker-factored
    approximate curvature", ICML 2015; convolutions as in Grosse and Martens, ICML 2016):
    ``(B + sqrt(gamma)/pi I)^-1 G (A + pi sqrt(gamma) I)^-1`` with the empirical Fisher's B.
    Arguments are those of :class:`~nysact.family.two_sided.TwoSidedOptimizer`.
    """

    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        del group
        return Kronecker(self._loss_scale)
