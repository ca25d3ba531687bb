"""SGD with momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.sgd import sgd

from nysact.distributed import local, sharded_like
from nysact.torch_private import foreach_mul
from nysact.updates.gradients import Gradients, States, local_gradients, rate_of


def sgd_update(
    group: Mapping[str, Any], params: Sequence[Tensor], gradients: Gradients, state: States
) -> None:
    """Update parameters of a group; ``grad`` is only read, each rank updates what it holds."""
    chosen = local_gradients(params, gradients)
    decay, coupled = group["weight_decay"], not group["decoupled_weight_decay"]
    rate = rate_of(group)
    held = [local(param) for param in params]
    if decay and not coupled:
        foreach_mul(held, 1 - rate * decay)
    decay = decay if coupled else 0.0
    if group["nesterov"] and not decay and not group["maximize"]:
        # torch's Nesterov step adds to the gradients in place.
        chosen = [g if p in gradients else g.clone() for g, p in zip(chosen, params, strict=True)]
    kept = [state[param].get("momentum_buffer") for param in params]
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
                state[param]["momentum_buffer"] = sharded_like(buffer, param)
