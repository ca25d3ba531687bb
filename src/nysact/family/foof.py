"""FOOF: the exact activation covariance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nysact.curvature import Curvature, Exact
from nysact.optim.momentum import MomentumOptimizer


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
