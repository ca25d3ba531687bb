"""Who orthogonalises which weights: this process alone, or several that divide them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.distributed import Exchange, Processes, Split, assign, split_of
from nysact.updates.layout import MatrixLayout
from nysact.updates.newton_schulz import orthogonalise_all, working_dtype


def orthogonal_weights(
    params: Sequence[Tensor],
    values: Sequence[Tensor],
    layouts: Sequence[MatrixLayout],
    steps: int,
    processes: Processes,
) -> list[Tensor]:
    """Orthogonalise values like the weights, of which this rank holds a part or the whole."""
    buckets: dict[Any, list[int]] = {}
    splits = [split_of(param) for param in params]
    for index, (split, value) in enumerate(zip(splits, values, strict=True)):
        group = split.group if isinstance(split, Split) else None
        buckets.setdefault((group, value.dtype, value.device), []).append(index)
    results = list(values)
    for (group, *_), indices in buckets.items():
        chosen = [values[i].to(working_dtype(values[i])) for i in indices]
        of_chosen = [layouts[i] for i in indices]
        if group is not None:
            found = _sharded(chosen, [splits[i] for i in indices], of_chosen, steps)
        elif processes:
            found = _shared(chosen, of_chosen, steps, processes)
        else:
            found = _whole(chosen, of_chosen, steps)
        for index, result in zip(indices, found, strict=True):
            results[index] = result
    return results


def _whole(values: Sequence[Tensor], layouts: Sequence[MatrixLayout], steps: int) -> list[Tensor]:
    """Orthogonalise whole weights here."""
    matrices = [layout.matrices(value) for layout, value in zip(layouts, values, strict=True)]
    triples = zip(layouts, orthogonalise_all(matrices, steps), values, strict=True)
    return [layout.weight(result, value.shape) for layout, result, value in triples]


def _shared(
    values: Sequence[Tensor], layouts: Sequence[MatrixLayout], steps: int, processes: Processes
) -> list[Tensor]:
    """Orthogonalise a share of the weights, and get the others' from their ranks."""
    owners = assign([layout.cost for layout in layouts], processes.count)
    mine = [i for i, owner in enumerate(owners) if owner == processes.index]
    results = [torch.zeros_like(value) for value in values]
    found = _whole([values[i] for i in mine], [layouts[i] for i in mine], steps)
    for index, result in zip(mine, found, strict=True):
        results[index].copy_(result)
    # A sum with zeros has the same bits on all ranks.
    processes.sum(results)
    return results


def _sharded(
    parts: Sequence[Tensor], splits: Sequence[Any], layouts: Sequence[MatrixLayout], steps: int
) -> list[Tensor]:
    """Assemble each weight on one rank, orthogonalise it there and send its parts back."""
    group: Any = splits[0].group
    exchange = Exchange(splits, assign([layout.cost for layout in layouts], group.size()))
    wholes = _whole(exchange.assemble(parts), [layouts[i] for i in exchange.mine], steps)
    return exchange.distribute(wholes, parts[0])
