"""FOOF's curvature: the exact activation covariance."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.curvature.curvature import Damping, JoinedCurvature, Shape, Tensors, lift_damping
from nysact.curvature.linalg import covariance_eigenpairs, inverse_or_identity
from nysact.layers.linear_map import LinearMap


class Exact(JoinedCurvature):
    """The activation covariance itself, by its eigenpairs."""

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        return {"covariance": (shape.dim, shape.dim)}

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        eigenvalues = torch.zeros(
            len(seeds), shape.groups, shape.dim, dtype=torch.float64, device="cpu"
        )
        return {"basis": torch.diag_embed(eigenvalues), "eigenvalues": eigenvalues}

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        return {"covariance": linear_map.covariance()}

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        basis, eigenvalues, succeeded = covariance_eigenpairs(statistics["covariance"])
        return {"basis": basis, "eigenvalues": eigenvalues}, succeeded

    def mean_eigenvalue(self, factors: Tensors, dim: int) -> Tensor:
        return factors["eigenvalues"].sum(-1) / dim

    def action(self, factors: Tensors, damping: Damping, ready: Tensor) -> Tensors:
        eigenvalues = factors["eigenvalues"]
        damped = eigenvalues + lift_damping(damping, eigenvalues)
        return {"inverse": inverse_or_identity(factors["basis"], damped, ready)}

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        return gradient @ action["inverse"]

    def summary(self, factors: Tensors) -> Tensors:
        eigenvalues = factors["eigenvalues"]
        return {"eigenvalues": eigenvalues, "trace": eigenvalues.sum(-1)}
