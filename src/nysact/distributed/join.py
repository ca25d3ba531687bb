"""Processes that run out of batches before others do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.join import Join, JoinHook
from torch.nn.parallel import DistributedDataParallel

from nysact.distributed.processes import Processes
from nysact.distributed.shards import local


class ShadowSteps(JoinHook):
    """Takes part in the collectives of the steps that other processes still do.

    Args:
        step: Does what a step exchanges, and nothing to parameters.
        processes: Those that share each batch.
        device: Where collectives take their tensors.
        tensors: Gives what only steps with gradients change, parameters apart.
    """

    def __init__(
        self,
        step: Callable[[], None],
        processes: Processes,
        device: torch.device,
        tensors: Callable[[], Sequence[Tensor]],
    ) -> None:
        self._step = step
        self._processes = processes
        self._device = device
        self._tensors = tensors

    def main_hook(self) -> None:
        """Shadow one step."""
        self._step()

    def post_hook(self, is_last_joiner: bool) -> None:
        """Take over what the last to have batches has.

        Args:
            is_last_joiner: Whether this process is one of them.
        """
        rank = dist.get_rank()
        last = torch.tensor([rank if is_last_joiner else -1], device=self._device)
        for group in self._processes.groups:
            dist.all_reduce(last, dist.ReduceOp.MAX, group=group)
        has_it = int(last) == rank
        for tensor in map(local, self._tensors()):
            if not has_it:
                tensor.zero_()
            # A sum with zeros is a broadcast that goes over several groups too.
            for group in self._processes.groups:
                dist.all_reduce(tensor, group=group)


def group_of_join(
    wrapper: DistributedDataParallel | None, processes: Processes
) -> dist.ProcessGroup | None:
    """Give the processes that say to each other whether they have batches.

    Args:
        wrapper: What the model is wrapped in.
        processes: Those that share each batch.

    Returns:
        The wrapper's, which a join holds against the optimizer's.
    """
    if wrapper is not None:
        return wrapper.process_group
    return processes.groups[0] if len(processes.groups) == 1 else dist.group.WORLD


def check_joined(wrapper: Any, optimizer: Any) -> None:
    """Make sure that an optimizer takes part in each join of its model, as the second.

    The framework keeps no list of the joins that are not over, so that finding them takes a tenth
    of a second.

    Args:
        wrapper: What the model is wrapped in.
        optimizer: Its optimizer.

    Raises:
        RuntimeError: If a process without batches would not take part in what a step exchanges.
    """
    for context in [found for found in gc.get_objects() if type(found) is Join]:
        joined = [id(each) for each in context._joinables]
        first, *others = joined
        missing = id(wrapper) in joined and id(optimizer) not in others
        if missing or id(optimizer) == first:
            raise RuntimeError(
                "inside model.join(), processes that have run out of batches would miss the sums "
                "of this optimizer: use torch.distributed.algorithms.Join([model, optimizer]), the "
                "model first"
            )
