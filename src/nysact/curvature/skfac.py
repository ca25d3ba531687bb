"""SKFAC's curvature: K-FAC's covariances of a few samples, inverted through them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nysact.curvature.curvature import Damping, Shape, Tensors, lift
from nysact.curvature.kfac import Kronecker
from nysact.curvature.linalg import apply_low_rank, gram_eigenpairs
from nysact.curvature.two_sided import SIDES
from nysact.layers.linear_map import LinearMap


class SampledKronecker(Kronecker):
    """The Kronecker product of two covariances of rank m, those of a step's first m samples.

    A sample gives one row per side: its inputs averaged over positions, and its output gradients
    summed over them.
    """

    statistic = "rows"
    degree = 1
    eigenpairs = staticmethod(gram_eigenpairs)

    def __init__(self, samples: int, loss_scale: Callable[[], float]) -> None:
        super().__init__(loss_scale)
        self._kept = samples

    def statistic_size(self, size: int) -> tuple[int, ...]:
        return (self._kept, size)

    def factor_sizes(self, size: int) -> dict[str, tuple[int, ...]]:
        rank = min(self._kept, size)
        return {"basis": (size, rank), "eigenvalues": (rank,)}

    def of_inputs(self, linear_map: LinearMap, offset: int) -> Tensor:
        return self._from_offset(linear_map.sample_means(), offset)

    def of_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensor:
        sums = rows.reshape(rows.shape[0], samples, -1, rows.shape[-1]).sum(2)
        return self._from_offset(sums, offset)

    def _from_offset(self, rows: Tensor, offset: int) -> Tensor:
        """Put rows behind those of earlier calls, and drop those beyond the last one kept."""
        offset = min(offset, self._kept)
        rows = rows[:, : self._kept - offset]
        return F.pad(rows, (0, 0, offset, self._kept - offset - rows.shape[1]))

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        totals = super().totals(sums, samples)
        return {**totals, "samples": totals["samples"].clamp(max=self._kept)}

    def portion(self, totals: Tensors, place: int, count: int) -> Tensors:
        # Each process fills a share of the rows.
        share = self._kept // count + (place < self._kept % count)
        first = place * (self._kept // count) + min(place, self._kept % count)
        pad = (0, 0, first, self._kept - first - share)
        rows = {f"{s}_rows": F.pad(totals[f"{s}_rows"][..., :share, :], pad) for s in SIDES}
        return {**totals, **rows, "samples": totals["samples"].clamp(max=share)}

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        # Their Gram matrix is the mean.
        root = totals["samples"].sqrt()[..., None, None]
        return {f"{side}_rows": totals[f"{side}_rows"] / root for side in SIDES}

    def work(self, shape: Shape) -> float:
        return float((shape.dim + shape.out) * self._kept**2)

    def side_mean(self, factors: Tensors, side: str) -> Tensor:
        return factors[f"{side}_eigenvalues"].sum(-1) / factors[f"{side}_basis"].shape[-2]

    def action(self, factors: Tensors, damping: Damping, ready: Tensor) -> Tensors:
        # The formula of Sherman, Morrison and Woodbury.
        action: Tensors = {}
        for side, part in zip(SIDES, self.split_damping(factors, damping), strict=True):
            basis, rest = factors[f"{side}_basis"], part.reciprocal()
            along = (factors[f"{side}_eigenvalues"] + part.unsqueeze(-1)).reciprocal()
            left = basis * (along - rest.unsqueeze(-1)).unsqueeze(-2)
            action[f"{side}_left"] = torch.where(lift(ready, left), left, 0)
            action[f"{side}_right"] = basis
            action[f"{side}_rest"] = torch.where(ready.view(-1, 1), rest, 1)
        return action

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        for side in SIDES:
            factors = (action[f"{side}_{part}"] for part in ("left", "right", "rest"))
            gradient = apply_low_rank(gradient, *factors)[0].mT
        return gradient

    def inverse(self, factors: Tensors, damping: Damping, ready: Tensor, dim: int) -> Tensor:
        action = self.action(factors, damping, ready)
        dense = action["input_left"] @ action["input_right"].mT
        dense.diagonal(dim1=-2, dim2=-1).add_(action["input_rest"].unsqueeze(-1))
        return dense.squeeze(0)
