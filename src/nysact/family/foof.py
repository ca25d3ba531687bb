"""FOOF: the exact activation covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, JoinedCurvature, Shape, Tensors, known_or_identity, linalg
from nysact.linear_map import LinearMap
from nysact.optim.momentum import MomentumOptimizer


class Exact(JoinedCurvature):
    """The activation covariance itself, through its eigenpairs."""

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """See :meth:`Curvature.statistics`."""
        return {"covariance": (shape.dim, shape.dim)}

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        """See :meth:`Curvature.initial`."""
        eigenvalues = torch.zeros(len(seeds), shape.groups, shape.dim, dtype=torch.float64)
        return {"basis": torch.diag_embed(eigenvalues), "eigenvalues": eigenvalues}

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        """See :meth:`Curvature.measure`."""
        del probes, offset
        return {"covariance": linear_map.covariance()}

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        """See :meth:`Curvature.refresh`."""
        del probes
        basis, eigenvalues, succeeded = linalg.covariance_eigenpairs(statistics["covariance"])
        return {"basis": basis, "eigenvalues": eigenvalues}, succeeded

    def action(self, factors: Tensors, damping: float, known: Tensor) -> Tensors:
        """See :meth:`Curvature.action`."""
        basis, damped = factors["basis"], factors["eigenvalues"] + damping
        inverse = (basis / damped.unsqueeze(-2)) @ basis.mT
        return {"inverse": known_or_identity(known, inverse)}

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        """See :meth:`JoinedCurvature.multiply`."""
        return gradient @ action["inverse"]

    def summary(self, factors: Tensors) -> Tensors:
        """See :meth:`Curvature.summary`."""
        eigenvalues = factors["eigenvalues"]
        return {"eigenvalues": eigenvalues, "trace": eigenvalues.sum(-1)}


class FOOF(MomentumOptimizer):
    """SGD with momentum on gradients multiplied by the exact damped inverse covariance.

    Implements FOOF (Benzing, "Gradient Descent on Neurons and its Link to Approximate
    Second-Order Optimization", ICML 2022): ``G (A + damping I)^-1``. It is what
    :class:`nysact.NysAct` approximates, at the price of two ``d x d`` matrices of state a layer
    and an eigenproblem of that size a refresh. The defaults are those of the NysAct paper's
    table 7. Arguments are those of :class:`~nysact.optim.momentum.MomentumOptimizer`.
    """

    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        del group
        return Exact()
