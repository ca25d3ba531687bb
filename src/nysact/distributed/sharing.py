"""Who computes which factors, and how the others get them."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nysact.distributed.processes import Processes

if TYPE_CHECKING:
    from nysact.optim.stack import LayerStack

# Operations spared for each number that a process sends: about half the rank where all have equal
# shares. Measured on gloo at rank 10, where both ways take about the same time, and at 50, where
# sharing takes half to two thirds of it.
_WORTH_SENDING = 16

Outcome = tuple[dict[str, Tensor], Tensor]


def assign(costs: Sequence[float], processes: int) -> list[int]:
    """Divide work: the costliest piece goes first, each to the process with least to do.

    Args:
        costs: The cost of each piece.
        processes: Number of processes.

    Returns:
        The process of each piece; the same wherever it is asked for.
    """
    loads = [(0.0, process) for process in range(processes)]
    owners = [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
        load, process = heapq.heappop(loads)
        owners[piece] = process
        heapq.heappush(loads, (load + costs[piece], process))
    return owners


def pays(stacks: Sequence[LayerStack], processes: int) -> bool:
    """Tell whether it takes less time to compute factors once and send them than to compute all.

    Args:
        stacks: The layers.
        processes: Number of processes.

    Returns:
        Whether enough operations are spared for each number that is sent.
    """
    costs = _costs(stacks)
    loads = [0.0] * processes
    for cost, owner in zip(costs, assign(costs, processes), strict=True):
        loads[owner] += cost
    numbers = sum(_size(stack) * len(stack.layers) for stack in stacks)
    sent = 2 * numbers * (processes - 1) / processes
    return sum(costs) - max(loads) >= _WORTH_SENDING * sent


def refresh_together(stacks: Sequence[LayerStack], processes: Processes) -> None:
    """Refresh the factors of all layers, each of them in one process.

    The factors that are put in force are those that were exchanged, on the process that computed
    them too, so that they are the same bits everywhere.

    Args:
        stacks: The layers.
        processes: Those that divide the work; if this one is alone, it computes everything.
    """
    outcomes = _compute_and_exchange(stacks, processes) if processes else {}
    for stack in stacks:
        due = [True] * len(stack.layers)
        stack.refresh(due, stack.group["step"], outcomes.get(stack))


def _compute_and_exchange(
    stacks: Sequence[LayerStack], processes: Processes
) -> dict[LayerStack, Outcome]:
    """Factors of all layers, and whether each can be used."""
    computed = {
        stack: _computed(stack, places)
        for stack, places in zip(stacks, _shares(stacks, processes), strict=True)
    }
    # The others have zeros in these places: the sum is what was computed, on all of them.
    parts = [[*factors.values(), usable] for factors, usable in computed.values()]
    processes.start_sum([tensor for part in parts for tensor in part]).wait()
    return {stack: (factors, usable > 0) for stack, (factors, usable) in computed.items()}


def _shares(stacks: Sequence[LayerStack], processes: Processes) -> list[slice]:
    """The layers of each stack that this process computes."""
    place, count = processes.place
    owners = iter(assign(_costs(stacks), count))
    shares = []
    for stack in stacks:
        # They cost the same, so that each process may have neighbours: a slice asks no device.
        order = sorted(islice(owners, len(stack.layers)))
        shares.append(slice(bisect_left(order, place), bisect_right(order, place)))
    return shares


def _computed(stack: LayerStack, places: slice) -> Outcome:
    """Factors of some of a stack's layers, in their places, and zeros for the others."""
    factors = {name: torch.zeros_like(value) for name, value in stack.factors.in_force.items()}
    usable = torch.zeros(
        len(stack.layers), stack.shape.groups, dtype=stack.dtype, device=stack.device
    )
    if places.start < places.stop:
        found, succeeded = stack.factorise(places)
        for name, value in factors.items():
            value[places] = found[name]
        usable[places] = succeeded
    return factors, usable


def _costs(stacks: Sequence[LayerStack]) -> list[float]:
    return [stack.cost for stack in stacks for _ in stack.layers]


def _size(stack: LayerStack) -> int:
    """Numbers that a layer's factors and verdicts take."""
    return sum(value[0].numel() for value in stack.factors.in_force.values()) + stack.shape.groups
