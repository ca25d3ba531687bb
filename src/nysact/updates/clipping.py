"""KL clipping: a bound on a step's length in the metric of the curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.distributed import local_gradient, sum_over_shards
from nysact.torch_private import foreach_mul
from nysact.updates.gradients import Gradients, rate_of


def clip_step(
    param_groups: Sequence[Mapping[str, Any]], gradients: Gradients, bound: float
) -> None:
    """Scale the preconditioned gradients of the groups in place, without a device sync."""
    owned = [(p, group) for group in param_groups for p in group["params"] if p in gradients]
    if not owned:
        return
    lengths = [
        rate_of(group) ** 2 * _inner(gradients[param], local_gradient(param))
        for param, group in owned
    ]
    params = [param for param, _ in owned]
    length = sum_over_shards(lengths, params).abs()
    scale = (bound / length.clamp(min=torch.finfo(length.dtype).tiny)).sqrt().clamp(max=1)
    foreach_mul([gradients[param] for param in params], scale)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner product, in float32 at least."""
    dtype = torch.promote_types(left.dtype, torch.float32)
    return (left.to(dtype) * right.to(dtype)).sum()
