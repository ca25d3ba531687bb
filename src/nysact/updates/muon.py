"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.distributed import is_sharded, local
from nysact.torch_private import foreach_lerp, foreach_mul
from nysact.updates.gradients import (
    Gradients,
    States,
    buffers_of,
    local_gradients,
    rate_of,
    with_gradient,
)
from nysact.updates.layout import MatrixLayout

# The coefficients of Jordan et al., as in torch.optim.Muon.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_EPS = 1e-7


def muon_update(
    group: dict[str, Any],
    gradients: Gradients,
    state: States,
    layouts: Mapping[Tensor, MatrixLayout],
) -> None:
    """Update the parameters of a group; ``grad`` is only read."""
    params = with_gradient(group)
    if not params:
        return
    _check_whole(params)
    updates = _momentum(group, params, gradients, state)
    held, rate = [local(param) for param in params], rate_of(group)
    if group["weight_decay"]:
        foreach_mul(held, 1 - rate * group["weight_decay"])
    chosen = [layouts[param] for param in params]
    matrices = [layout.matrices(u) for layout, u in zip(chosen, updates, strict=True)]
    results = orthogonalise_all(matrices, group["ns_steps"])
    for param, layout, result in zip(held, chosen, results, strict=True):
        scaled = result * (rate * adjustment(group["adjust_lr_fn"], *layout.shape))
        param.sub_(layout.weight(scaled.to(param.dtype), param))


def _check_whole(params: Sequence[Tensor]) -> None:
    """Raise if a weight lies on several processes, each of which would see some rows alone."""
    for param in params:
        if is_sharded(param) and not all(each.is_replicate() for each in param.placements):
            raise ValueError(
                f"update='muon' for a weight of shape {tuple(param.shape)} that is sharded over "
                f"processes as {param.placements}: Muon needs the whole matrix; use NysAdamW, put "
                "it into a group with update='adamw', or wrap the model in DistributedDataParallel"
            )


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


def orthogonalise_all(matrices: Sequence[Tensor], steps: int) -> list[Tensor]:
    """Orthogonalise stacks of matrices, (n, out, fan_in) each; stacks of one shape in one batch."""
    members: dict[Any, list[int]] = {}
    for index, stack in enumerate(matrices):
        members.setdefault((*stack.shape[1:], stack.dtype, stack.device), []).append(index)
    results: list[Tensor] = list(matrices)
    for indices in members.values():
        stacks = [matrices[index] for index in indices]
        batch = torch.cat(stacks) if len(stacks) > 1 else stacks[0]
        parts = orthogonalise(batch, steps).split([len(stack) for stack in stacks])
        for index, part in zip(indices, parts, strict=True):
            results[index] = part
    return results


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Map the singular values of matrices (n, out, fan_in) to about 1 by Newton-Schulz steps."""
    # Rounding matters little: bfloat16 where it is fast, float32 at least elsewhere.
    gpu = matrices.device.type != "cpu"
    dtype = torch.bfloat16 if gpu else torch.promote_types(matrices.dtype, torch.float32)
    wide = matrices.to(dtype)
    tall = wide.shape[-2] > wide.shape[-1]
    wide = wide.mT if tall else wide
    wide = wide / torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True).clamp(min=_EPS)
    for _ in range(steps):
        gram = wide @ wide.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        wide = torch.baddbmm(wide, polynomial, wide, beta=_A)
    return wide.mT if tall else wide
