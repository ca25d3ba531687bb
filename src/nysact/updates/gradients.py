"""The gradients that an update reads, and the buffers that it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.distributed import local, local_gradient

Gradients = Mapping[Tensor, Tensor]
States = MutableMapping[Tensor, dict[str, Any]]
# Tensors of the shape of a parameter that any update keeps.
BUFFERS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


def local_gradients(params: Iterable[Tensor], gradients: Gradients) -> list[Tensor]:
    """Preconditioned gradients on this rank; a parameter without one uses its ``grad``."""
    return [gradients[p] if p in gradients else local_gradient(p) for p in params]


def rate_of(group: Mapping[str, Any]) -> float | Tensor:
    """A group's learning rate, a number or a tensor without dimensions."""
    rate: float | Tensor = group["lr"]
    return rate.reshape(()) if isinstance(rate, Tensor) else rate


def buffers_of(params: Sequence[Tensor], state: States, name: str) -> list[Tensor]:
    """The parameters' buffers of a name, on this rank; zeros where there is none yet."""
    for param in params:
        if state[param].get(name) is None:
            state[param][name] = torch.zeros_like(param, memory_format=torch.preserve_format)
    return [local(state[param][name]) for param in params]


def steps_of(params: Sequence[Tensor], state: States, *, fused: bool | None) -> list[Tensor]:
    """The parameters' numbers of steps, on the host unless a fused kernel counts them."""
    for param in params:
        if "step" not in state[param]:
            device = param.device if fused else "cpu"
            state[param]["step"] = torch.zeros((), dtype=torch.float32, device=device)
    return [state[param]["step"] for param in params]


def init_buffers(group: Mapping[str, Any], state: States) -> None:
    """Give the trainable parameters of a group the state that a first step would."""
    for param in group["params"]:
        if not param.requires_grad:
            continue
        # A step leaves a state of each parameter, if only an empty one.
        state[param]
        if group["update"] == "adamw":
            steps_of([param], state, fused=group["fused"])
            buffers_of([param], state, "exp_avg")
            buffers_of([param], state, "exp_avg_sq")
        elif group["momentum"]:
            buffers_of([param], state, "momentum_buffer")
