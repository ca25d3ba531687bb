"""Eva: the mean input and the mean output gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nysact.curvature import Curvature, KroneckerVectors
from nysact.family.two_sided import TwoSidedOptimizer


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
