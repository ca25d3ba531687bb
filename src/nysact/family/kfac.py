"""K-FAC: the covariances of inputs and of output gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nysact.curvature import Curvature, Kronecker
from nysact.family.two_sided import TwoSidedOptimizer


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
