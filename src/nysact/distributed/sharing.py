"""Which rank computes which factors, and whether to divide that work at all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import islice

# Operations saved per number sent: about half the rank where all shares are equal. Measured on
# gloo: both ways take about the same time at rank 10; at rank 50 sharing takes half to two thirds.
_WORTH_SENDING = 16


def assign(costs: Sequence[float], processes: int) -> list[int]:
    """Rank of each piece of work: the costliest first, each to the rank with the least to do."""
    loads, ranks = [0.0] * processes, [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
        ranks[piece] = loads.index(min(loads))
        loads[ranks[piece]] += costs[piece]
    return ranks


def sharing_pays(costs: Sequence[float], sizes: Sequence[int], processes: int) -> bool:
    """Whether dividing the work saves enough operations per number that is then exchanged."""
    loads = [0.0] * processes
    for cost, rank in zip(costs, assign(costs, processes), strict=True):
        loads[rank] += cost
    sent = 2 * sum(sizes) * (processes - 1) / processes
    return sum(costs) - max(loads) >= _WORTH_SENDING * sent


def rank_slices(
    costs: Sequence[float], counts: Sequence[int], index: int, processes: int
) -> list[slice]:
    """The slice of each group of layers that one rank computes, given the cost of each layer."""
    ranks = iter(assign(costs, processes))
    # Layers of one group cost the same, so that each rank can take neighbours: one slice.
    orders = [sorted(islice(ranks, count)) for count in counts]
    return [slice(bisect_left(order, index), bisect_right(order, index)) for order in orders]
