"""SKFAC: K-FAC's covariances of a few samples, inverted through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nysact.curvature import Curvature, JoinedCurvature, Shape, Tensors, lift
from nysact.curvature.linalg import apply_low_rank, gram_eigenpairs
from nysact.family.kfac import balance_of
from nysact.family.two_sided import TwoSidedOptimizer
from nysact.linear_map import LinearMap


class SampledKronecker(JoinedCurvature):
    """The Kronecker product of two covariances of rank m, those of the first m samples.

    A sample gives one row a side: its inputs averaged over positions and its output gradients
    summed over them.

    Args:
        samples: Number m of samples that a step's statistics keep.
        loss_scale: Gives the factor that the loss was scaled with, at each backward.
    """

    observes_outputs = True

    def __init__(self, samples: int, loss_scale: Callable[[], float]) -> None:
        self._kept = samples
        self._loss_scale = loss_scale

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """See :meth:`Curvature.statistics`."""
        return {
            "input_rows": (self._kept, shape.dim),
            "output_rows": (self._kept, shape.out),
            "samples": (),
        }

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        """See :meth:`Curvature.initial`."""
        factors = {}
        for side, size in (("input", shape.dim), ("output", shape.out)):
            rank, lead = min(self._kept, size), (len(seeds), shape.groups)
            factors[f"{side}_basis"] = torch.zeros(*lead, size, rank, dtype=torch.float64)
            factors[f"{side}_eigenvalues"] = torch.zeros(*lead, rank, dtype=torch.float64)
        return factors

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        """See :meth:`Curvature.measure`."""
        del probes
        return {"input_rows": self._place(linear_map.sample_means(), offset)}

    def measure_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensors:
        """See :meth:`Curvature.measure_outputs`."""
        sums = rows.reshape(rows.shape[0], samples, -1, rows.shape[-1]).sum(2)
        return {"output_rows": self._place(sums / self._loss_scale(), offset)}

    def _place(self, rows: Tensor, offset: int) -> Tensor:
        """Put rows behind those of earlier calls, and drop what is beyond the last place."""
        offset = min(offset, self._kept)
        rows = rows[:, : self._kept - offset]
        return F.pad(rows, (0, 0, offset, self._kept - offset - rows.shape[1]))

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        """See :meth:`Curvature.totals`; a mean loss divides each sample's gradient by N."""
        outputs = sums["output_rows"]
        counts = samples.clamp(max=self._kept).expand(outputs.shape[:2])
        return {**sums, "output_rows": outputs * lift(samples, outputs), "samples": counts}

    def portion(self, totals: Tensors, place: int, count: int) -> Tensors:
        """See :meth:`Curvature.portion`; each process fills a share of the rows."""
        share = self._kept // count + (place < self._kept % count)
        first = place * (self._kept // count) + min(place, self._kept % count)
        taken = {name: totals[name][..., :share, :] for name in ("input_rows", "output_rows")}
        behind = self._kept - first - share
        placed = {name: F.pad(rows, (0, 0, first, behind)) for name, rows in taken.items()}
        return {**totals, **placed, "samples": totals["samples"].clamp(max=share)}

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        """See :meth:`Curvature.means`; the Gram matrix of what it gives is the mean."""
        del rows
        root = totals["samples"].sqrt()[..., None, None]
        return {side: totals[side] / root for side in ("input_rows", "output_rows")}

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        """See :meth:`Curvature.refresh`."""
        del probes
        factors: Tensors = {}
        usable = []
        for side in ("input", "output"):
            pairs = gram_eigenpairs(statistics[f"{side}_rows"])
            factors[f"{side}_basis"], factors[f"{side}_eigenvalues"], succeeded = pairs
            usable.append(succeeded)
        return factors, usable[0] & usable[1]

    def work(self, shape: Shape) -> float:
        """See :meth:`Curvature.work`."""
        return float((shape.dim + shape.out) * self._kept**2)

    def action(self, factors: Tensors, damping: float, known: Tensor) -> Tensors:
        """See :meth:`Curvature.action`; the formula of Sherman, Morrison and Woodbury."""
        action: Tensors = {}
        for side, each in zip(("input", "output"), self._dampings(factors, damping), strict=True):
            basis, rest = factors[f"{side}_basis"], each.reciprocal()
            along = (factors[f"{side}_eigenvalues"] + each.unsqueeze(-1)).reciprocal()
            left = basis * (along - rest.unsqueeze(-1)).unsqueeze(-2)
            action[f"{side}_left"] = torch.where(lift(known, left), left, 0)
            action[f"{side}_right"] = basis
            action[f"{side}_rest"] = torch.where(known.view(-1, 1), rest, 1)
        return action

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        """See :meth:`JoinedCurvature.multiply`."""
        for side in ("input", "output"):
            factors = (action[f"{side}_{part}"] for part in ("left", "right", "rest"))
            gradient = apply_low_rank(gradient, *factors)[0].mT
        return gradient

    def _dampings(self, factors: Tensors, damping: float) -> tuple[Tensor, Tensor]:
        """Spread the damping over both sides by their mean eigenvalues, as K-FAC does."""
        means = [
            factors[f"{side}_eigenvalues"].sum(-1) / factors[f"{side}_basis"].shape[-2]
            for side in ("input", "output")
        ]
        balance = balance_of(*means)
        return balance * damping**0.5, damping**0.5 / balance

    def inverse(self, factors: Tensors, damping: float, known: Tensor, dim: int) -> Tensor:
        """See :meth:`Curvature.inverse`; the factor that acts on the inputs' side."""
        del dim
        action = self.action(factors, damping, known)
        dense = action["input_left"] @ action["input_right"].mT
        dense.diagonal(dim1=-2, dim2=-1).add_(action["input_rest"].unsqueeze(-1))
        return dense.squeeze(0)

    def summary(self, factors: Tensors) -> Tensors:
        """See :meth:`Curvature.summary`."""
        eigenvalues = factors["input_eigenvalues"]
        return {
            "eigenvalues": eigenvalues,
            "trace": eigenvalues.sum(-1),
            "output_eigenvalues": factors["output_eigenvalues"],
            "output_trace": factors["output_eigenvalues"].sum(-1),
        }


class SKFAC(TwoSidedOptimizer):
    """SGD with momentum on gradients multiplied by K-FAC's inverse of a few samples.

    Implements SKFAC (Tang et al., "SKFAC: Training neural networks with faster Kronecker-factored
    approximate curvature", CVPR 2021): both covariances are those of m samples, each averaged or
    summed over its positions, so that an m x m problem inverts them. Rows of different batches
    can't be averaged, so the statistics are those of the batch before a refresh alone.

    Args:
        model: The model that is trained.
        params: As in :class:`~nysact.optim.momentum.MomentumOptimizer`.
        rank: Number m of samples kept.
        **options: The other arguments of :class:`~nysact.family.two_sided.TwoSidedOptimizer`, but
            ``stat_decay`` and ``subsample``.

    Raises:
        TypeError: If ``stat_decay`` or ``subsample`` is passed.
    """

    _own = frozenset({"rank"})

    def __init__(
        self, model: nn.Module, params: Any = None, *, rank: int = 128, **options: Any
    ) -> None:
        for name in ("stat_decay", "subsample"):
            if name in options:
                raise TypeError(f"SKFAC has no {name}: it keeps the first samples of one batch")
        super().__init__(
            model, params, **{**options, "stat_decay": 0.0, "subsample": 1, "rank": rank}
        )

    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        return SampledKronecker(group["rank"], self._loss_scale)
