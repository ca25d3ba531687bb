"""The processes that share each batch, and sums over them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nysact.distributed.groups import (
    Group,
    check_type,
    fills_world,
    given_groups,
    groups_of_model,
    several_running,
)
from nysact.torch_private import foreach_copy


class Processes:
    """The processes that share each batch; without groups this process is alone."""

    def __init__(self, groups: Sequence[dist.ProcessGroup] = (), *, early: bool = False) -> None:
        # Summing over one group after the other must cover every rank once.
        self.groups = tuple(group for group in groups if dist.get_world_size(group) > 1)
        self.ranks = frozenset(_covered(self.groups)) if self.groups else frozenset[int]()
        self.index, self.count = 0, 1  # of this process among those ranks, and their number
        if self.groups:
            self.index, self.count = sorted(self.ranks).index(dist.get_rank()), len(self.ranks)
        self._early = early  # looked for before init_process_group

    def __bool__(self) -> bool:
        """Whether there are others."""
        return bool(self.groups)

    def check_alone(self) -> None:
        """Raise if init_process_group was called after the processes were looked for."""
        if self._early and several_running():
            raise RuntimeError(
                f"torch.distributed was initialised after the optimizer was built and runs "
                f"{dist.get_world_size()} processes, whose statistics the optimizer would not sum: "
                "build it after init_process_group, with the wrapped model or with "
                "process_group=, or with process_group=False if each process trains its own model"
            )

    def check_device(self, device: torch.device) -> None:
        """Raise unless every group has a backend for tensors on the device."""
        for group in self.groups:
            backends = dist.get_backend_config(group)
            if f"{device.type}:" not in backends:
                raise ValueError(
                    f"statistics are on the device {device.type!r}, like the weights, but their "
                    f"process group has only the backends {backends!r}: initialise it with one "
                    'for each device, for example init_process_group("cpu:gloo,cuda:nccl")'
                )

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors in place, of the same shapes in the same order on each process."""
        kinds: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        buckets = [torch.cat([term.reshape(-1) for term in terms]) for terms in kinds.values()]
        for group in self.groups:
            works = [dist.all_reduce(bucket, group=group, async_op=True) for bucket in buckets]
            for work in works:
                assert work is not None
                work.wait()  # on a GPU the stream waits, not the host
        for bucket, terms in zip(buckets, kinds.values(), strict=True):
            sums = bucket.split([term.numel() for term in terms])
            foreach_copy(terms, [s.view_as(term) for s, term in zip(sums, terms, strict=True)])

    def check_agreement(self, description: str, device: torch.device) -> None:
        """Raise on all processes unless all pass the same description, one item a line."""
        digest = hashlib.blake2b(description.encode(), digest_size=7).digest()
        number = int.from_bytes(digest, "big")
        bounds = torch.tensor([number, -number], device=device)
        for group in self.groups:
            dist.all_reduce(bounds, dist.ReduceOp.MAX, group=group)
        if int(bounds[0]) != -int(bounds[1]):
            raise ValueError(
                "the processes do not precondition the same layers with the same settings "
                f"{self._difference(description)}: build the same model and the same optimizer on "
                "each of them, with the same seed, and load the same checkpoint"
            )

    def _difference(self, description: str) -> str:
        """The first line that differs between processes."""
        rank, *others = sorted(found := _collect(self.groups, description))
        for other in others:
            lines = zip(found[rank].splitlines(), found[other].splitlines(), strict=False)
            for ours, theirs in lines:
                if ours != theirs:
                    return f"(rank {rank} has {ours!r} where rank {other} has {theirs!r})"
            if len(found[rank]) != len(found[other]):
                return f"(rank {rank} and rank {other} have different layers)"
        return ""


def _collect(groups: Sequence[dist.ProcessGroup], mine: Any) -> dict[int, Any]:
    """What each process passed, by global rank; a collective call over every group."""
    known = {dist.get_rank(): mine}
    for group in groups:
        found: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(found, known, group=group)
        known = {rank: theirs for each in found for rank, theirs in each.items()}
    return known


def _covered(groups: Sequence[dist.ProcessGroup]) -> Iterable[int]:
    """Global ranks that a sum over one group after the other covers."""
    if len(groups) == 1:
        return dist.get_process_group_ranks(groups[0])
    ranks = _collect(groups, None)
    if math.prod(map(dist.get_world_size, groups)) != len(ranks):
        members = [dist.get_process_group_ranks(group) for group in groups]
        raise ValueError(
            f"a sum over the process groups {members} (ranks), one after the other, counts some "
            "processes more often than others: pass groups that count each process once, for "
            "example one within each node and one across nodes"
        )
    return ranks


def find_processes(model: nn.Module, process_group: Group | Literal[False] | None) -> Processes:
    """The processes that share batches: those given, or those that gradients are reduced over."""
    if not (dist.is_available() and dist.is_initialized()):
        check_type(process_group)
        return Processes(early=process_group is None)
    found = groups_of_model(model)
    if process_group is not None:
        processes = Processes(given_groups(process_group))
        _check_span(process_group, processes, found)
        return processes
    if len(found) > 1:
        raise ValueError(
            f"different parts of the model are reduced over {len(found)} different process groups, "
            "expected one: pass process_group= if one of them holds all processes that share "
            "batches"
        )
    if processes_pending(model, process_group):
        raise ValueError(
            f"torch.distributed runs {dist.get_world_size()} processes, but the model is neither "
            "a DistributedDataParallel nor sharded by fully_shard, so that it is unknown which of "
            "them share its batches: wrap the model and call the wrapper, or pass "
            "process_group=torch.distributed.group.WORLD (or another group), or "
            "process_group=False if each process trains a model of its own"
        )
    return Processes(list(found))


def processes_pending(model: nn.Module, process_group: Group | Literal[False] | None) -> bool:
    """Whether several processes run and nothing says yet which of them share batches."""
    if process_group is not None or not dist.is_available():
        return False
    # Started by torchrun, the processes come to know of each other later.
    early = not dist.is_initialized() and dist.is_torchelastic_launched()
    unknown = early or several_running()
    return unknown and not groups_of_model(model) and not fills_world(model)


def _check_span(given: Any, processes: Processes, found: Iterable[dist.ProcessGroup]) -> None:
    """Raise if statistics would be summed over fewer processes than gradients."""
    reduced = {rank for group in found for rank in dist.get_process_group_ranks(group)}
    held = processes.ranks | {dist.get_rank()}
    if not reduced <= held:
        raise ValueError(
            f"process_group={given!r} sums statistics over the ranks {sorted(held)}, but the "
            f"model's gradients are reduced over the ranks {sorted(reduced)}, whose copies would "
            "drift apart: leave process_group out, or pass groups that hold all of them, one "
            "after the other"
        )
