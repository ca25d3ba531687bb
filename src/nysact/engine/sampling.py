"""Which rows of a call's inputs its statistics are taken from."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from nysact.layers import LayerAdapter

# Of a dense layer, this many rows for each of its inputs, and no fewer than these.
_ROWS_PER_INPUT, _LEAST_ROWS = 4, 1024
# The positions of an image are alike: beyond this many a sample, fewer samples suffice.
_ROWS_PER_SAMPLE = 16
_LARGEST_STRIDE = 32
# Places are fractions of 2^16. The multiples of these two, of the golden ratio and the plastic
# number, spread evenly: the first from part to part of a batch, the second from step to step.
STARTS, _GOLDEN, _PLASTIC = 2**16, 40503, 49471


def start_of(seed: int, step: int) -> int:
    """Where the choice of a step starts; ``step`` counts the steps with statistics."""
    return (seed + step * _PLASTIC) % STARTS


def reads_rows(adapter: LayerAdapter) -> bool:
    """Whether the rows of a layer's linear map are its inputs themselves, as in a dense layer."""
    return type(adapter).linear_map is LayerAdapter.linear_map


def sample(
    adapter: LayerAdapter,
    module: nn.Module,
    inputs: Sequence[Tensor],
    subsample: int | Literal["auto"],
    start: int,
) -> tuple[Sequence[Tensor], float]:
    """The sampled inputs of a call, and how many samples each of them stands for."""
    if subsample != "auto":  # a bad value is refused by the step
        stride = subsample if isinstance(subsample, int) and subsample > 0 else 1
    elif reads_rows(adapter):
        return _sample_rows(inputs, start)
    else:
        positions = adapter.positions(module, inputs)
        stride = min(max(1, positions // _ROWS_PER_SAMPLE), _LARGEST_STRIDE)
    total = inputs[0].shape[0]
    count = -(-total // stride)
    return [_choose(tensor, count, start) for tensor in inputs], total / count


def _sample_rows(inputs: Sequence[Tensor], start: int) -> tuple[Sequence[Tensor], float]:
    """Rows of a dense layer's inputs, whichever of their dimensions count samples."""
    totals = [tensor.shape[:-1].numel() for tensor in inputs]
    least = max(_LEAST_ROWS, _ROWS_PER_INPUT * inputs[0].shape[-1])
    counts = [min(total, max(least, total // _LARGEST_STRIDE)) for total in totals]
    if counts == totals:
        return inputs, 1.0
    chosen = [_choose(_to_rows(x), n, start) for x, n in zip(inputs, counts, strict=True)]
    return chosen, totals[0] / counts[0]


def _to_rows(inputs: Tensor) -> Tensor:
    """Flatten all dimensions but the last in the order of memory, which needs no copy."""
    order = sorted(range(inputs.ndim - 1), key=inputs.stride().__getitem__, reverse=True)
    return inputs.permute(*order, -1).flatten(0, -2)


def _choose(inputs: Tensor, count: int, start: int) -> Tensor:
    """Copy ``count`` entries of the first dimension, or return all if there are no more."""
    total = inputs.shape[0]
    if count == total:
        return inputs
    return inputs.index_select(0, spread(total, count, start, inputs.device))


@lru_cache(maxsize=64)  # layers that see equally many samples in a step share the indices
def spread(total: int, count: int, start: int, device: torch.device) -> Tensor:
    """One index from each of ``count`` equal parts of ``range(total)``."""
    # Over all starts each index is chosen equally often. The place within a part differs from part
    # to part, so that data of any period, such as the frames of clips, are read evenly.
    part = torch.arange(count, device=device)
    place = (part * _GOLDEN + start) % STARTS
    return (part * STARTS + place) * total // (count * STARTS)
