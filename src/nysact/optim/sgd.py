"""Optimizers that feed preconditioned gradients to SGD with momentum."""

from __future__ import annotations

from torch import Tensor

from nysact.optim.optimizer import PreconditionedOptimizer
from nysact.optim.settings import (
    ClipOptions,
    EngineOptions,
    LossOptions,
    NystromOptions,
    UpdateOptions,
)
from nysact.updates import clip_step, momentum_buffers, sgd_update


class SGDOptions(UpdateOptions, EngineOptions, ClipOptions, total=False):
    """Options of SGD on preconditioned gradients."""


class NysActOptions(UpdateOptions, NystromOptions, EngineOptions, ClipOptions, total=False):
    """Options of :class:`nysact.NysAct`."""


class TwoSidedOptions(SGDOptions, LossOptions, total=False):
    """Options of the optimizers that observe the gradients of outputs too."""


class SGDOptimizer(PreconditionedOptimizer):
    """SGD with momentum on preconditioned gradients."""

    @property
    def kl_clip(self) -> float | None:
        """The bound of the KL clipping."""
        bound: float | None = self._alone["kl_clip"]
        return bound

    def _init_state(self) -> None:
        momentum_buffers(self.param_groups, self.state)

    def _update(self, gradients: dict[Tensor, Tensor]) -> None:
        if self.kl_clip is not None:
            clip_step(self.param_groups, gradients, self.kl_clip)
        for group in self.param_groups:
            sgd_update(group, gradients, self.state)
