"""The parameter update: SGD with momentum, on gradients preconditioned or not."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from nysact.distributed import local, local_gradient, sharded_like
from nysact.optim.checkpoint import MOMENTUM


def momentum_update(
    group: dict[str, Any],
    gradients: Mapping[Tensor, Tensor],
    state: MutableMapping[Tensor, dict[str, Any]],
) -> None:
    """Update the parameters of one group; their ``grad`` is only read.

    What lies in other processes is updated there, by the same element-wise operations.

    Args:
        group: The parameter group.
        gradients: Preconditioned gradients; a parameter without one uses its ``grad``.
        state: The optimizer's state, which holds the momentum buffers.
    """
    params = [param for param in group["params"] if param.grad is not None]
    if not params:
        return
    chosen = [gradients[p] if p in gradients else local_gradient(p) for p in params]
    decay, coupled = group["weight_decay"], not group["decoupled_weight_decay"]
    rate = rate_of(group)
    held = [local(param) for param in params]
    if decay and not coupled:
        torch._foreach_mul_(held, 1 - rate * decay)
    decay = decay if coupled else 0.0
    if group["nesterov"] and not decay and not group["maximize"]:
        # Nesterov's step of the framework adds to the gradients in place.
        chosen = [g if p in gradients else g.clone() for g, p in zip(chosen, params, strict=True)]
    kept = [state[param].get(MOMENTUM) for param in params]
    buffers = [None if buffer is None else local(buffer) for buffer in kept]
    sgd(
        held,
        chosen,
        buffers,
        has_sparse_grad=any(gradient.is_sparse for gradient in chosen),
        foreach=group["foreach"],
        fused=group["fused"],
        weight_decay=decay,
        momentum=group["momentum"],
        lr=rate,
        dampening=0.0,
        nesterov=group["nesterov"],
        maximize=group["maximize"],
    )
    if group["momentum"]:
        for param, buffer, before in zip(params, buffers, kept, strict=True):
            if before is None and buffer is not None:
                state[param][MOMENTUM] = sharded_like(buffer, param)


def rate_of(group: Mapping[str, Any]) -> float | Tensor:
    """Give a group's learning rate.

    Args:
        group: The parameter group.

    Returns:
        A number, or a tensor without dimensions.
    """
    rate: float | Tensor = group["lr"]
    return rate.reshape(()) if isinstance(rate, Tensor) else rate
