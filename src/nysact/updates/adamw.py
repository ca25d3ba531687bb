"""AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.adamw import adamw

from nysact.distributed import local
from nysact.updates.gradients import (
    Gradients,
    States,
    buffers_of,
    local_gradients,
    rate_of,
    steps_of,
)


def adamw_update(
    group: Mapping[str, Any], params: Sequence[Tensor], gradients: Gradients, state: States
) -> None:
    """Update parameters of a group; ``grad`` is only read, each rank updates what it holds."""
    chosen = local_gradients(params, gradients)
    if any(gradient.is_sparse for gradient in chosen):
        raise ValueError(
            "AdamW takes no sparse gradients: build the embedding with sparse=False, or put its "
            "weight into a group with update='sgd'"
        )
    beta1, beta2 = group.get("betas", (0.9, 0.999))
    adamw(
        [local(param) for param in params],
        chosen,
        buffers_of(params, state, "exp_avg"),
        buffers_of(params, state, "exp_avg_sq"),
        [],
        steps_of(params, state, fused=group["fused"]),
        foreach=group["foreach"],
        fused=group["fused"],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=rate_of(group),
        weight_decay=group["weight_decay"],
        eps=group.get("eps", 1e-8),
        maximize=group["maximize"],
    )
