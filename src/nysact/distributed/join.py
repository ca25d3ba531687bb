"""Processes that run out of batches before others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.join import JoinHook

from nysact.distributed.processes import Processes


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
        for group in self._processes.groups:
            rank = dist.get_rank(group) if is_last_joiner else -1
            last = torch.tensor([rank], device=self._device)
            dist.all_reduce(last, dist.ReduceOp.MAX, group=group)
            for tensor in self._tensors():
                dist.broadcast(tensor, group=group, group_src=int(last))
