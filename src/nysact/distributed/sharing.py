"""Who computes which factors, and how the others get them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nysact.distributed.processes import Processes

if TYPE_CHECKING:
    from nysact.optim.stack import LayerStack

# Operations a number: about the rank. Measured on gloo at 10, where both ways take the same time,
# and at 50, where sharing takes half of it.
_WORTH_SENDING = 32

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


def pays(stacks: Sequence[LayerStack]) -> bool:
    """Tell whether it takes less time to compute factors once and send them than to compute all.

    Args:
        stacks: The layers.

    Returns:
        Whether enough operations are spared for each number that is sent.
    """
    work = sum(stack.cost * len(stack.layers) for stack in stacks)
    return work >= _WORTH_SENDING * sum(_size(stack) * len(stack.layers) for stack in stacks)


def refresh_together(stacks: Sequence[LayerStack], processes: Processes) -> None:
    """Refresh the factors of all layers, each of them in one process.

    The factors that are put in force are those that were exchanged, on the process that computed
    them too, so that they are the same bits everywhere.

    Args:
        stacks: The layers.
        processes: Those that divide the work; if this one is alone, it computes everything.
    """
    outcomes: dict[LayerStack, Outcome] = {}
    if processes:
        kinds: dict[Any, list[LayerStack]] = {}
        for stack in stacks:
            kinds.setdefault((stack.device, stack.dtype), []).append(stack)
        for members in kinds.values():
            outcomes.update(_compute_and_exchange(members, processes))
    for stack in stacks:
        due = [True] * len(stack.layers)
        stack.refresh(due, stack.group["step"], outcomes.get(stack))


def _compute_and_exchange(
    stacks: Sequence[LayerStack], processes: Processes
) -> dict[LayerStack, Outcome]:
    """Factors of all layers of one dtype and device, and whether each can be used."""
    pieces = [(stack, index) for stack in stacks for index in range(len(stack.layers))]
    owners = assign([stack.cost for stack, _ in pieces], processes.size)
    shares: list[dict[LayerStack, list[int]]] = [{} for _ in range(processes.size)]
    for (stack, index), owner in zip(pieces, owners, strict=True):
        shares[owner].setdefault(stack, []).append(index)
    lengths = [sum(_size(s) * len(places) for s, places in share.items()) for share in shares]
    rows = [_computed(stack, places) for stack, places in shares[processes.rank].items()]
    sent = torch.cat([stacks[0].totals.mass.new_empty(0), *rows])
    received = processes.gather(F.pad(sent, (0, max(lengths) - len(sent))))
    outcomes = {stack: _blank(stack) for stack in stacks}
    for share, row in zip(shares, received, strict=True):
        sizes = [_size(stack) * len(places) for stack, places in share.items()]
        parts = row.split([*sizes, len(row) - sum(sizes)])
        for (stack, places), part in zip(share.items(), parts, strict=False):
            _place(outcomes[stack], places, part.view(len(places), -1))
    return outcomes


def _size(stack: LayerStack) -> int:
    """Numbers that a layer's factors and verdicts take."""
    return sum(value[0].numel() for value in stack.factors.in_force.values()) + stack.shape.groups


def _computed(stack: LayerStack, places: list[int]) -> Tensor:
    """Factorise some of a stack's layers, and lay the factors out layer by layer."""
    factors, succeeded = stack.factorise(places)
    columns = [factors[name].flatten(1) for name in stack.factors.in_force]
    return torch.cat([*columns, succeeded.to(columns[0].dtype)], dim=1).flatten()


def _blank(stack: LayerStack) -> Outcome:
    factors = {name: torch.empty_like(value) for name, value in stack.factors.in_force.items()}
    return factors, torch.empty_like(stack.totals.mass, dtype=torch.bool)


def _place(outcome: Outcome, places: list[int], rows: Tensor) -> None:
    """Put what one process computed for some of a stack's layers to their places."""
    factors, succeeded = outcome
    sizes = [value[0].numel() for value in factors.values()]
    *columns, verdicts = rows.split([*sizes, succeeded.shape[1]], dim=1)
    for value, column in zip(factors.values(), columns, strict=True):
        value[places] = column.reshape(len(places), *value.shape[1:])
    succeeded[places] = verdicts > 0
