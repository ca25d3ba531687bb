"""SGD with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from nysact.distributed import local, local_gradient, sharded_like
from nysact.torch_private import foreach_mul
from nysact.updates.clipping import rate_of

MOMENTUM = "momentum_buffer"
States = MutableMapping[Tensor, dict[str, Any]]


def momentum_buffers(param_groups: Iterable[Mapping[str, Any]], state: States) -> None:
    """Give every trainable parameter its state, as a first step would."""
    for group in param_groups:
        for param in group["params"]:
            # A step leaves a state of each parameter, if only an empty one.
            own = state[param] if param.requires_grad else {}
            if param.requires_grad and group["momentum"]:
                own.setdefault(MOMENTUM, torch.zeros_like(param))


def sgd_update(group: dict[str, Any], gradients: Mapping[Tensor, Tensor], state: States) -> None:
    """Update the parameters of a group; ``grad`` is only read, each rank updates what it holds."""
    params = [param for param in group["params"] if param.grad is not None]
    if not params:
        return
    chosen = [gradients[p] if p in gradients else local_gradient(p) for p in params]
    decay, coupled = group["weight_decay"], not group["decoupled_weight_decay"]
    rate = rate_of(group)
    held = [local(param) for param in params]
    if decay and not coupled:
        foreach_mul(held, 1 - rate * decay)
    decay = decay if coupled else 0.0
    if group["nesterov"] and not decay and not group["maximize"]:
        # torch's Nesterov step adds to the gradients in place.
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
