"""Refreshes that are divided over processes, and the exchange of the factors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.distributed import Processes, rank_slices, sharing_pays
from nysact.optim.stack import LayerStack

Outcome = tuple[dict[str, Tensor], Tensor]


def pays(stacks: Sequence[LayerStack], processes: int) -> bool:
    """Whether dividing the refresh of these layers is faster than repeating it on every rank."""
    costs = [stack.cost for stack in stacks for _ in stack.layers]
    sizes = [_size(stack) for stack in stacks for _ in stack.layers]
    return sharing_pays(costs, sizes, processes)


def refresh_together(stacks: Sequence[LayerStack], processes: Processes) -> None:
    """Refresh all layers, each on one rank; alone, this process computes everything."""
    outcomes = _compute_and_exchange(stacks, processes) if processes else {}
    for stack in stacks:
        due = [True] * len(stack.layers)
        stack.refresh(due, stack.group["step"], outcomes.get(stack))


def _compute_and_exchange(
    stacks: Sequence[LayerStack], processes: Processes
) -> dict[LayerStack, Outcome]:
    """Factors of all layers, and whether each can be used."""
    costs, counts = [stack.cost for stack in stacks], [len(stack.layers) for stack in stacks]
    shares = rank_slices(costs, counts, processes.index, processes.count)
    computed = {s: _computed(s, share) for s, share in zip(stacks, shares, strict=True)}
    # The other ranks have zeros there: the sum is what was computed, the same bits on all of them.
    parts = [[*factors.values(), usable] for factors, usable in computed.values()]
    processes.start_sum([tensor for part in parts for tensor in part]).wait()
    return {stack: (factors, usable > 0) for stack, (factors, usable) in computed.items()}


def _computed(stack: LayerStack, share: slice) -> Outcome:
    """Factors of a slice of a stack's layers, and zeros for the others."""
    factors = {name: torch.zeros_like(value) for name, value in stack.factors.in_force.items()}
    usable = torch.zeros(
        len(stack.layers), stack.shape.groups, dtype=stack.dtype, device=stack.device
    )
    if share.start < share.stop:
        found, succeeded = stack.factorise(share)
        for name, value in factors.items():
            value[share] = found[name]
        usable[share] = succeeded
    return factors, usable


def _size(stack: LayerStack) -> int:
    """Numbers that a layer's factors and verdicts take."""
    return sum(value[0].numel() for value in stack.factors.in_force.values()) + stack.shape.groups
