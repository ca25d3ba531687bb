"""Joins for uneven batches are refused: a rank without batches would miss the statistics' sums."""

from __future__ import annotations

from typing import NoReturn

from torch.nn.parallel import DistributedDataParallel

from nysact.torch_private import in_join


def refuse_join() -> NoReturn:
    """Raise the error that model.join() and Join([...]) get."""
    raise RuntimeError(
        "nysact optimizers do not support model.join() or Join([...]): ranks that have run out of "
        "batches would miss the sums of the statistics. Give every rank the same number of "
        "batches instead: torch.utils.data.distributed.DistributedSampler does so by repeating "
        "samples, or by leaving the last ones out with drop_last=True"
    )


def check_no_join(wrapper: DistributedDataParallel | None) -> None:
    """Raise inside a join of the model; costs one attribute look-up unless there was a join."""
    if wrapper is not None and in_join(wrapper):
        refuse_join()
