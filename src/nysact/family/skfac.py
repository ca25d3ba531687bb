"""SKFAC: K-FAC's covariances of a few samples, inverted through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nysact.curvature import Curvature, SampledKronecker
from nysact.family.two_sided import TwoSidedOptimizer


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
