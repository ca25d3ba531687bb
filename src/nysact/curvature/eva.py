"""Eva's curvature: the mean input and the mean output gradient."""

import torch
from torch import Tensor

from nysact.curvature.curvature import Damping, Shape, Tensors, lift, lift_damping
from nysact.curvature.two_sided import TwoSided
from nysact.layers.linear_map import LinearMap


class KroneckerVectors(TwoSided):
    """The rank-one curvature ``(b b^T) x (a a^T)`` of a mean row a and a mean output gradient b.

    b sums over a sample's positions, so that ``b a^T`` has the scale of the weight's gradient.
    """

    statistic = "mean"

    def statistic_size(self, size: int) -> tuple[int, ...]:
        return (size,)

    def factor_sizes(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"vector": (size,)}

    def of_inputs(self, linear_map: LinearMap, offset: int) -> Tensor:
        return linear_map.row_sum()

    def of_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensor:
        return rows.sum(1)

    def factorise(self, statistic: Tensor) -> tuple[Tensors, Tensor]:
        return {"vector": statistic}, statistic.isfinite().all(-1)

    def work(self, shape: Shape) -> float:
        return float(shape.dim + shape.out)

    def mean_eigenvalue(self, factors: Tensors, dim: int) -> Tensor:
        a, b = _vectors(factors)
        return _squared_norm(a, b).squeeze((-2, -1)) / dim

    def action(self, factors: Tensors, damping: Damping, ready: Tensor) -> Tensors:
        # The formula of Sherman and Morrison.
        a, b = _vectors(factors)
        damping, ready = lift_damping(damping, a), lift(ready, a)
        return {
            "input": a,
            "output": b,
            "gain": torch.where(ready, 1 / (damping + _squared_norm(a, b)), 0),
            "scale": torch.where(ready, 1 / damping + a.new_zeros(()), 1),
        }

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        a, b = action["input"], action["output"]
        along = (b.mT @ gradient @ a.mT) * action["gain"]
        return (gradient - along * (b @ a)) * action["scale"]

    def inverse(self, factors: Tensors, damping: Damping, ready: Tensor, dim: int) -> Tensor:
        raise TypeError("Eva's inverse is no matrix on the inputs' side: it mixes both sides")

    def summary(self, factors: Tensors) -> Tensors:
        # The one eigenvalue is the squared length of b a^T.
        norms = factors["input_vector"].norm(dim=-1) * factors["output_vector"].norm(dim=-1)
        return {"eigenvalues": norms.square().unsqueeze(-1), "trace": norms.square()}


def _vectors(factors: Tensors) -> tuple[Tensor, Tensor]:
    """Return a as a row, (layers, groups, 1, dim), and b as a column, (layers, groups, out, 1)."""
    return factors["input_vector"].unsqueeze(-2), factors["output_vector"].unsqueeze(-1)


def _squared_norm(a: Tensor, b: Tensor) -> Tensor:
    """Squared length of ``b a^T``, (..., 1, 1)."""
    return a.square().sum((-2, -1), keepdim=True) * b.square().sum((-2, -1), keepdim=True)
