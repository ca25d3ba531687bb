"""Eva: the mean input and the mean output gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, JoinedCurvature, Shape, Tensors, lift
from nysact.family.two_sided import TwoSidedOptimizer
from nysact.linear_map import LinearMap


class KroneckerVectors(JoinedCurvature):
    """The rank-one curvature ``(b b^T) x (a a^T)`` of a mean row a and a mean output gradient b.

    b sums over a sample's positions, so that ``b a^T`` has the scale of the weight's gradient.

    Args:
        loss_scale: Gives the factor that the loss was scaled with, at each backward.
    """

    observes_outputs = True

    def __init__(self, loss_scale: Callable[[], float]) -> None:
        self._loss_scale = loss_scale

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """See :meth:`Curvature.statistics`."""
        return {"input_mean": (shape.dim,), "output_mean": (shape.out,), "samples": ()}

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        """See :meth:`Curvature.initial`."""
        lead = (len(seeds), shape.groups)
        return {
            "input_vector": torch.zeros(*lead, shape.dim, dtype=torch.float64),
            "output_vector": torch.zeros(*lead, shape.out, dtype=torch.float64),
        }

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        """See :meth:`Curvature.measure`."""
        del probes, offset
        return {"input_mean": linear_map.row_sum()}

    def measure_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensors:
        """See :meth:`Curvature.measure_outputs`."""
        del samples, offset
        return {"output_mean": rows.sum(1) / self._loss_scale()}

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        """See :meth:`Curvature.totals`; a mean loss divides each sample's gradient by N."""
        outputs = sums["output_mean"]
        counts = samples.expand(outputs.shape[:2])
        return {**sums, "output_mean": outputs * lift(samples, outputs), "samples": counts}

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        """See :meth:`Curvature.means`."""
        inputs, outputs = totals["input_mean"], totals["output_mean"]
        return {
            "input_mean": inputs / lift(rows, inputs),
            "output_mean": outputs / lift(totals["samples"], outputs),
        }

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        """See :meth:`Curvature.refresh`; the vectors are their own factors."""
        del probes
        inputs, outputs = statistics["input_mean"], statistics["output_mean"]
        usable = inputs.isfinite().all(-1) & outputs.isfinite().all(-1)
        return {"input_vector": inputs, "output_vector": outputs}, usable

    def work(self, shape: Shape) -> float:
        """See :meth:`Curvature.work`."""
        return float(shape.dim + shape.out)

    def action(self, factors: Tensors, damping: float, known: Tensor) -> Tensors:
        """See :meth:`Curvature.action`; the formula of Sherman and Morrison."""
        a, b = factors["input_vector"].unsqueeze(-2), factors["output_vector"].unsqueeze(-1)
        known = lift(known, a)
        return {
            "input": a,
            "output": b,
            "gain": torch.where(known, 1 / (damping + _norms(a, b)), 0),
            "scale": torch.where(known, a.new_full((), 1 / damping), 1),
        }

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        """See :meth:`JoinedCurvature.multiply`."""
        a, b = action["input"], action["output"]
        along = (b.mT @ gradient @ a.mT) * action["gain"]
        return (gradient - along * (b @ a)) * action["scale"]

    def inverse(self, factors: Tensors, damping: float, known: Tensor, dim: int) -> Tensor:
        """Refuse: the inverse mixes both sides.

        Raises:
            TypeError: Always.
        """
        raise TypeError("Eva's inverse is no matrix on the inputs' side: it mixes both sides")

    def summary(self, factors: Tensors) -> Tensors:
        """See :meth:`Curvature.summary`; the one eigenvalue is the squared length of b a^T."""
        norms = factors["input_vector"].norm(dim=-1) * factors["output_vector"].norm(dim=-1)
        return {"eigenvalues": norms.square().unsqueeze(-1), "trace": norms.square()}


def _norms(a: Tensor, b: Tensor) -> Tensor:
    """Squared length of ``b a^T``, ``(..., 1, 1)``."""
    return a.square().sum((-2, -1), keepdim=True) * b.square().sum((-2, -1), keepdim=True)


class Eva(TwoSidedOptimizer):
    """SGD with momentum on gradients multiplied by the inverse of Eva's rank-one curvature.

    Implements Eva (Zhang, Shi and Li, "Eva: Practical second-order optimization with
    Kronecker-vectorized approximation", ICLR 2023): with the mean row a and the mean output
    gradient b, ``(G - (b^T G a) / (gamma + |a|^2 |b|^2) b a^T) / gamma``. The state is two
    vectors a layer. Arguments are those of
    :class:`~nysact.family.two_sided.TwoSidedOptimizer`.
    """

    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        del group
        return KroneckerVectors(self._loss_scale)
