"""Refreshes that ranks divide between them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.curvature import Tensors
from nysact.distributed import Processes, rank_slices, sharing_pays
from nysact.engine.layer_group import LayerGroup

Computed = tuple[Tensors, Tensor]


def shared_factors(
    groups: Sequence[LayerGroup], processes: Processes, wanted: bool | None
) -> Sequence[Computed | None]:
    """Factors of the groups, each layer's from one rank; None where each rank computes all."""
    layers = [group for group in groups for _ in group.layers]
    costs, sizes = [group.cost for group in layers], [group.exchanged for group in layers]
    if wanted is None:
        wanted = sharing_pays(costs, sizes, processes.count)
    if not (processes and groups and wanted):
        return [None] * len(groups)
    counts = [len(group.layers) for group in groups]
    slices = rank_slices(costs, counts, processes.index, processes.count)
    # The rank that computed a factor takes the exchanged one too: all have the same bits.
    computed = [_compute(group, part) for group, part in zip(groups, slices, strict=True)]
    # The other ranks have zeros in these slices: the sum is what was computed.
    processes.sum([term for factors, usable in computed for term in (*factors.values(), usable)])
    return [(factors, usable > 0) for factors, usable in computed]


def _compute(group: LayerGroup, layers: slice) -> Computed:
    """Factors of a slice of a group's layers, zeros for the others."""
    factors = {name: torch.zeros_like(value) for name, value in group.factors.current.items()}
    usable = torch.zeros_like(group.running.rows)
    if layers.start < layers.stop:
        found, usable[layers] = group.factorise(layers)
        for name, value in factors.items():
            value[layers] = found[name]
    return factors, usable
