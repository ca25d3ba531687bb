"""The engine alone, for use with any optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from nysact.curvature import Curvature, Nystrom
from nysact.distributed import set_gradient
from nysact.optim.optimizer import PreconditionedOptimizer

if TYPE_CHECKING:
    from nysact.distributed import Group


class Preconditioner(PreconditionedOptimizer):
    """Preconditions gradients in place, for use with any optimizer.

    Call :meth:`step` between ``backward()`` and the other optimizer's ``step()``; it overwrites
    the ``grad`` of every preconditioned weight and bias and changes no parameter::

        preconditioner = Preconditioner(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ...
        loss.backward()
        preconditioner.step()
        optimizer.step()
        optimizer.zero_grad()

    Under a ``GradScaler`` call ``scaler.unscale_(optimizer)`` before :meth:`step`. Its
    ``state_dict`` is to be saved beside the optimizer's.

    Args:
        model: As in :class:`nysact.NysAct`, like all that follows.
        params: Parameters, named parameters or groups; default all trainable ones.
        damping: Damping rho.
        rank: Rank r of the approximation.
        sketch: ``"columns"``, ``"gaussian"`` or ``"subspace"``.
        tail: Whether the trace that the approximation misses is spread over the complement.
        stat_decay: Decay of the statistics' average within a window.
        cov_interval: Steps between statistics.
        inv_interval: Steps between refreshes of the factors.
        subsample: Every n-th sample is used for statistics; ``"auto"`` goes by the layer.
        exclude: Shell-style patterns of module names to leave out.
        seed: Seed of the probes.
        max_failures: Failures in a row that a layer's factorisation is granted.
        process_group: The processes that share each batch, by default found from the model.
        share_refresh: Whether they divide the factorisations between them.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a value is out of range or no layer can be preconditioned.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Any = None,
        *,
        damping: float = 1.0,
        rank: int = 10,
        sketch: Literal["columns", "gaussian", "subspace"] = "subspace",
        tail: bool = True,
        stat_decay: float = 0.95,
        cov_interval: int = 5,
        inv_interval: int = 50,
        subsample: int | Literal["auto"] = "auto",
        exclude: Sequence[str] = (),
        seed: int = 0,
        max_failures: int = 3,
        process_group: Group | Literal[False] | None = None,
        share_refresh: bool | None = None,
    ) -> None:
        defaults = {
            "damping": damping,
            "rank": rank,
            "sketch": sketch,
            "tail": tail,
            "stat_decay": stat_decay,
            "cov_interval": cov_interval,
            "inv_interval": inv_interval,
            "subsample": subsample,
            "seed": seed,
            "max_failures": max_failures,
        }
        super().__init__(
            model,
            params,
            defaults,
            exclude,
            process_group=process_group,
            share_refresh=share_refresh,
        )

    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        return Nystrom(group["sketch"], tail=group["tail"])

    def _apply(self, gradients: Mapping[Tensor, Tensor]) -> None:
        for param, gradient in gradients.items():
            set_gradient(param, gradient)
