"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nysact.distributed import Processes, local
from nysact.torch_private import foreach_lerp, foreach_mul
from nysact.updates.gradients import Gradients, States, buffers_of, local_gradients, rate_of
from nysact.updates.layout import MatrixLayout
from nysact.updates.orthogonal import orthogonal_weights


def muon_update(
    group: Mapping[str, Any],
    params: Sequence[Tensor],
    gradients: Gradients,
    state: States,
    layouts: Mapping[Tensor, MatrixLayout],
    processes: Processes,
) -> None:
    """Update parameters of a group, between processes if any; ``grad`` is only read."""
    updates = _momentum(group, params, gradients, state)
    held, rate = [local(param) for param in params], rate_of(group)
    if group["weight_decay"]:
        foreach_mul(held, 1 - rate * group["weight_decay"])
    chosen = [layouts[param] for param in params]
    results = orthogonal_weights(params, updates, chosen, group["ns_steps"], processes)
    for param, layout, result in zip(held, chosen, results, strict=True):
        scale = rate * adjustment(group["adjust_lr_fn"], *layout.shape)
        param.sub_((result * scale).to(param.dtype))


def _momentum(
    group: Mapping[str, Any], params: Sequence[Tensor], gradients: Gradients, state: States
) -> Sequence[Tensor]:
    """Average the gradients, and look ahead with Nesterov momentum."""
    chosen = local_gradients(params, gradients)
    if group["maximize"]:
        chosen = [-gradient for gradient in chosen]
    buffers = buffers_of(params, state, "momentum_buffer")
    foreach_lerp(buffers, chosen, 1 - group["momentum"])
    if not group["nesterov"]:
        return buffers
    # A preconditioned gradient is nobody else's, but a plain one is the user's.
    ahead = [g if p in gradients else g.clone() for p, g in zip(params, chosen, strict=True)]
    foreach_lerp(ahead, buffers, group["momentum"])
    return ahead


def adjustment(adjust_lr_fn: str, rows: int, columns: int) -> float:
    """Scale of the learning rate of a matrix, as in torch.optim.Muon."""
    if adjust_lr_fn == "original":
        return math.sqrt(max(1.0, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))
