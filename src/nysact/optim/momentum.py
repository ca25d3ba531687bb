"""SGD with momentum on preconditioned gradients: what the optimizers of the family share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from nysact.distributed import local_gradient, sum_over_shards
from nysact.optim.checkpoint import MOMENTUM
from nysact.optim.optimizer import PreconditionedOptimizer
from nysact.optim.settings import check_kl_clip
from nysact.optim.update import momentum_update, rate_of

if TYPE_CHECKING:
    from nysact.distributed import Group


class Options(TypedDict, total=False):
    """Options that every optimizer of the family takes; see :class:`MomentumOptimizer`."""

    lr: float | Tensor
    momentum: float
    nesterov: bool
    weight_decay: float
    decoupled_weight_decay: bool
    stat_decay: float
    cov_interval: int
    inv_interval: int
    subsample: int | Literal["auto"]
    exclude: Sequence[str]
    max_failures: int
    process_group: Group | Literal[False] | None
    share_refresh: bool | None
    maximize: bool
    foreach: bool | None
    fused: bool | None


class MomentumOptimizer(PreconditionedOptimizer):
    """SGD with momentum on preconditioned gradients.

    Args:
        model: The model that is trained. Its layers get forward hooks, so the same model must
            run the forwards.
        params: Parameters, named parameters or parameter groups of the model, as in
            ``torch.optim``; default all trainable parameters. A group may set the options below,
            ``exclude`` and ``kl_clip`` apart, and ``precondition=False`` for plain SGD.
        lr: Learning rate, a number or a tensor with one element.
        momentum: Momentum factor.
        nesterov: Whether to use Nesterov momentum.
        weight_decay: Coefficient of the weight decay.
        decoupled_weight_decay: Whether the decay acts on the parameters themselves, as in AdamW.
        damping: Damping of the curvature. It may be changed during training.
        stat_decay: Decay of the statistics' average.
        cov_interval: Steps between statistics (tau_cov).
        inv_interval: Steps between refreshes (tau_inv), a multiple of ``cov_interval``.
        subsample: Take statistics of the inputs of every n-th sample; ``"auto"`` goes by the
            layer, as in :class:`nysact.NysAct`.
        exclude: Shell-style patterns of names of modules to leave out.
        max_failures: How often in a row a layer's factorisation may fail, with a warning and the
            previous factors kept, before an error is raised.
        process_group: The processes that share each batch, as in :class:`nysact.NysAct`.
        share_refresh: Whether they divide the factorisations between them, likewise.
        maximize: Whether to maximise the objective.
        foreach: Use the multi-tensor update; by default where the framework does.
        fused: Use the fused update; off by default.
        kl_clip: Bound kappa on the squared length of a step in the curvature's metric: all
            preconditioned gradients are scaled by ``min(1, sqrt(kappa / (lr^2 <P(G), G>)))``;
            ``None`` for no bound.
        **own: Group options of one member of the family.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a value is out of range or no layer can be preconditioned.
    """

    _own: frozenset[str] = frozenset()

    def __init__(
        self,
        model: nn.Module,
        params: Any = None,
        *,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 5e-4,
        decoupled_weight_decay: bool = False,
        damping: float = 1.0,
        stat_decay: float = 0.95,
        cov_interval: int = 5,
        inv_interval: int = 50,
        subsample: int | Literal["auto"] = "auto",
        exclude: Sequence[str] = (),
        max_failures: int = 3,
        process_group: Group | Literal[False] | None = None,
        share_refresh: bool | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        kl_clip: float | None = None,
        **own: Any,
    ) -> None:
        unknown = own.keys() - self._own
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        check_kl_clip(kl_clip)
        self.kl_clip = kl_clip
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "damping": damping,
            "stat_decay": stat_decay,
            "cov_interval": cov_interval,
            "inv_interval": inv_interval,
            "subsample": subsample,
            "max_failures": max_failures,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
        }
        super().__init__(
            model,
            params,
            {**defaults, **own},
            exclude,
            process_group=process_group,
            share_refresh=share_refresh,
        )

    def _lasting_tensors(self) -> list[Tensor]:
        buffers = []
        for group in self.param_groups:
            for param in group["params"]:
                if not param.requires_grad:
                    continue
                # A step leaves a state of each parameter, if only an empty one.
                state = self.state[param]
                if group["momentum"]:
                    buffers.append(state.setdefault(MOMENTUM, torch.zeros_like(param)))
        return buffers

    def _apply(self, gradients: Mapping[Tensor, Tensor]) -> None:
        if self.kl_clip is not None and gradients:
            self._clip(gradients, self.kl_clip)
        for group in self.param_groups:
            momentum_update(group, gradients, self.state)

    def _clip(self, gradients: Mapping[Tensor, Tensor], bound: float) -> None:
        """Scale the preconditioned gradients in place, without asking the host."""
        owned = [(p, g) for g in self.param_groups for p in g["params"] if p in gradients]
        lengths = [
            rate_of(group) ** 2 * _inner(gradients[param], local_gradient(param))
            for param, group in owned
        ]
        params = [param for param, _ in owned]
        length = sum_over_shards(lengths, params).abs()
        scale = (bound / length.clamp(min=torch.finfo(length.dtype).tiny)).sqrt().clamp(max=1)
        torch._foreach_mul_(list(gradients.values()), scale)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner product, in float32 at least."""
    dtype = torch.promote_types(left.dtype, torch.float32)
    return (left.to(dtype) * right.to(dtype)).sum()
