"""KL clipping: a bound on a step's length in the metric of the curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.distributed import local_gradient, sum_over_shards
from nysact.torch_private import foreach_mul


def clip_step(
    param_groups: Sequence[Mapping[str, Any]], gradients: Mapping[Tensor, Tensor], bound: float
) -> None:
    """Scale the preconditioned gradients in place, without a device sync."""
    if not gradients:
        return
    owned = [(p, group) for group in param_groups for p in group["params"] if p in gradients]
    lengths = [
        rate_of(group) ** 2 * _inner(gradients[param], local_gradient(param))
        for param, group in owned
    ]
    length = sum_over_shards(lengths, [param for param, _ in owned]).abs()
    scale = (bound / length.clamp(min=torch.finfo(length.dtype).tiny)).sqrt().clamp(max=1)
    foreach_mul(list(gradients.values()), scale)


def rate_of(group: Mapping[str, Any]) -> float | Tensor:
    """A group's learning rate, a number or a tensor without dimensions."""
    rate: float | Tensor = group["lr"]
    return rate.reshape(()) if isinstance(rate, Tensor) else rate


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner product, in float32 at least."""
    dtype = torch.promote_types(left.dtype, torch.float32)
    return (left.to(dtype) * right.to(dtype)).sum()
