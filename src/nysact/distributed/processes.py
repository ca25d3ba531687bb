"""Which processes take part in one batch, and the sums over them."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    # One group, or several that are summed over in turn: within nodes first and across then, say.
    Group = dist.ProcessGroup | DeviceMesh | Sequence[dist.ProcessGroup]

# Groups that were made for meshes of several dimensions, by the ranks they hold: one for all
# optimizers, as long as the world lives.
_made: MutableMapping[dist.ProcessGroup, dict[tuple[int, ...], dist.ProcessGroup]]
_made = WeakKeyDictionary()


class Processes:
    """The processes that share each batch between them; by default this one is alone.

    Args:
        groups: Process groups; a sum over the first, then over the next, and so on, is one over
            all. Groups of one process count for nothing. With several groups all of their
            processes have to take part.
        early: Whether they were looked for before ``torch.distributed`` was initialised.

    Attributes:
        groups: The groups.
        ranks: Global ranks of all processes that a sum covers.
        place: Place of this process among them, and their number.
    """

    def __init__(self, groups: Sequence[dist.ProcessGroup] = (), *, early: bool = False) -> None:
        self.groups = tuple(group for group in groups if dist.get_world_size(group) > 1)
        self.ranks = frozenset[int]()
        self.place = 0, 1
        self._early = early
        if self.groups:
            self.ranks = frozenset(_covered(self.groups))
            self.place = sorted(self.ranks).index(dist.get_rank()), len(self.ranks)

    def __bool__(self) -> bool:
        """Whether there are others."""
        return bool(self.groups)

    def check_alone(self) -> None:
        """Make sure that no others have come since the optimizer was built without any.

        Raises:
            RuntimeError: If ``torch.distributed`` was initialised meanwhile.
        """
        if self._early and dist.is_available() and dist.is_initialized():
            count = dist.get_world_size()
            if count > 1:
                raise RuntimeError(
                    f"torch.distributed was initialised after the optimizer was built and runs "
                    f"{count} processes, whose statistics the optimizer would not add up: build it "
                    "after init_process_group, with the wrapped model or with process_group=, or "
                    "with process_group=False if this process trains a model of its own"
                )

    def check_device(self, device: torch.device) -> None:
        """Make sure that the groups can add up tensors of a device.

        Args:
            device: Where they are.

        Raises:
            ValueError: If a group has no backend for it.
        """
        for group in self.groups:
            backends = dist.get_backend_config(group)
            if f"{device.type}:" not in backends:
                raise ValueError(
                    f"statistics lie on the device {device.type!r}, as the weights do, but their "
                    f"process group has the backends {backends!r}: initialise it with one for "
                    'each device, init_process_group("cpu:gloo,cuda:nccl") say'
                )

    def start_sum(self, tensors: Sequence[Tensor]) -> Sum:
        """Begin to add up tensors of all processes.

        Args:
            tensors: The same shapes in the same order on each process.

        Returns:
            What to wait for.
        """
        return Sum(tensors, self.groups)

    def check_agreement(self, description: str, device: torch.device) -> None:
        """Make sure that all processes are about to do the same.

        Args:
            description: What this one is about to do, line by line.
            device: Where collectives take their tensors.

        Raises:
            ValueError: If another process has another description, on all of them.
        """
        digest = hashlib.blake2b(description.encode(), digest_size=7).digest()
        number = int.from_bytes(digest, "big")
        bounds = torch.tensor([number, -number], device=device)
        for group in self.groups:
            dist.all_reduce(bounds, dist.ReduceOp.MAX, group=group)
        if int(bounds[0]) != -int(bounds[1]):
            raise ValueError(
                "the processes do not precondition the same layers with the same settings "
                f"{self._difference(description)}: build the same model and the same optimizer on "
                "each of them, its seed included, and load the same checkpoint"
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
    """What each process has, by global rank; every group's processes have to take part."""
    known = {dist.get_rank(): mine}
    for group in groups:
        found: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(found, known, group=group)
        known = {rank: theirs for part in found for rank, theirs in part.items()}
    return known


def _covered(groups: Sequence[dist.ProcessGroup]) -> Iterable[int]:
    """Global ranks of the processes that a sum over one group after the other covers."""
    if len(groups) == 1:
        return dist.get_process_group_ranks(groups[0])
    ranks = _collect(groups, None)
    if math.prod(map(dist.get_world_size, groups)) != len(ranks):
        members = [dist.get_process_group_ranks(group) for group in groups]
        raise ValueError(
            f"a sum over the process groups of the ranks {members} in turn counts some processes "
            f"more often than others: pass groups that each process's part goes through once, "
            "within nodes first and across then, say"
        )
    return ranks


class Sum:
    """A sum over processes that is under way, in one bucket a dtype and device.

    Args:
        tensors: This process's terms; they become the sums.
        groups: Process groups.
    """

    def __init__(self, tensors: Sequence[Tensor], groups: Sequence[dist.ProcessGroup]) -> None:
        kinds: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        self._terms = list(kinds.values())
        self._buckets = [torch.cat([t.reshape(-1) for t in terms]) for terms in self._terms]
        self._later = groups[1:]
        self._works = [
            dist.all_reduce(bucket, group=groups[0], async_op=True) for bucket in self._buckets
        ]

    def wait(self) -> None:
        """Put the sums in the place of the terms; a device waits for them, the host needn't.

        Raises:
            RuntimeError: If another process is gone, or a group's timeout is over.
        """
        for work, bucket, terms in zip(self._works, self._buckets, self._terms, strict=True):
            assert work is not None
            work.wait()
            for group in self._later:
                dist.all_reduce(bucket, group=group)
            parts = bucket.split([term.numel() for term in terms])
            torch._foreach_copy_(
                terms, [part.view_as(term) for part, term in zip(parts, terms, strict=True)]
            )


def find_processes(model: nn.Module, process_group: Group | Literal[False] | None) -> Processes:
    """Find the processes that share a model's batches.

    Args:
        model: The model as the user has it.
        process_group: What the user says: a group, ``False`` for none, or ``None`` for those that
            ``DistributedDataParallel`` or ``fully_shard`` reduce the gradients over.

    Returns:
        The processes.

    Raises:
        TypeError: If ``process_group`` is something else, or the model is wrapped in
            ``FullyShardedDataParallel``.
        ValueError: If several processes run and the model does not say which of them share its
            batches, or the reverse: its gradients are reduced over more processes than the user
            says.
    """
    if not (dist.is_available() and dist.is_initialized()):
        _check_type(process_group)
        return Processes(early=process_group is None)
    found = _groups_of(model)
    if process_group is False and any(dist.get_world_size(group) > 1 for group in found):
        raise ValueError(
            "process_group=False keeps each process's statistics to itself, but the model's "
            "gradients are reduced over processes: their copies would drift apart"
        )
    if process_group is not None:
        processes = Processes(_explicit(process_group))
        _check_span(processes, found)
        return processes
    if len(found) > 1:
        raise ValueError(
            f"parts of the model are reduced over {len(found)} different process groups, expected "
            "one: pass process_group= if one of them holds all processes that share batches"
        )
    if not found and dist.get_world_size() > 1 and not _fills_world(model):
        raise ValueError(
            f"torch.distributed runs {dist.get_world_size()} processes, but the model is neither "
            "a DistributedDataParallel nor sharded by fully_shard, so that it is unknown which of "
            "them share its batches: build the optimizer with the wrapped model, or pass "
            "process_group=torch.distributed.group.WORLD (or another group), or "
            "process_group=False if each process trains a model of its own"
        )
    return Processes(list(found))


def _check_type(process_group: Any) -> None:
    known = dist.ProcessGroup if dist.is_available() else ()
    single = process_group is None or process_group is False
    if not (single or isinstance(process_group, (known, DeviceMesh, list, tuple))):
        raise TypeError(
            f"process_group={process_group!r}, expected a ProcessGroup, a DeviceMesh, a sequence "
            "of ProcessGroups, False for no reduction, or None to find it from the model"
        )


def _explicit(process_group: Group | Literal[False]) -> Sequence[dist.ProcessGroup]:
    _check_type(process_group)
    if process_group is False:
        return ()
    if isinstance(process_group, DeviceMesh):
        return (_group_of_mesh(process_group),)
    groups = [process_group] if isinstance(process_group, dist.ProcessGroup) else process_group
    if not groups:
        raise ValueError(
            f"process_group={process_group!r} is empty, expected at least one ProcessGroup, or "
            "False for no reduction"
        )
    for group in groups:
        _check_type(group)
        if dist.get_rank(group) < 0:
            raise ValueError(
                f"process_group={process_group!r} does not hold this process, rank "
                f"{dist.get_rank()}: pass each process a group that it is in"
            )
    return tuple(groups)


def _check_span(processes: Processes, found: Iterable[dist.ProcessGroup]) -> None:
    """Refuse to add up statistics over fewer processes than gradients."""
    reduced = {rank for group in found for rank in dist.get_process_group_ranks(group)}
    held = processes.ranks | {dist.get_rank()}
    if not reduced <= held:
        raise ValueError(
            f"process_group= holds the ranks {sorted(held)}, but the model's gradients are reduced "
            f"over the ranks {sorted(reduced)}, whose copies would drift apart: leave "
            "process_group out, or pass groups that hold all of them, one after the other"
        )


def wrapper_of(model: nn.Module) -> DistributedDataParallel | None:
    """Find the ``DistributedDataParallel`` that a model is or holds.

    Args:
        model: The model as the user has it.

    Returns:
        The first one, or ``None``.
    """
    found = (module for module in _modules(model) if isinstance(module, DistributedDataParallel))
    return next(found, None)


def _groups_of(model: nn.Module) -> set[dist.ProcessGroup]:
    """The groups that the parts of a model have their gradients reduced over."""
    found: set[dist.ProcessGroup] = set()
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    for module in _modules(model):
        if isinstance(module, DistributedDataParallel):
            found.add(module.process_group)
        elif fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel):
            raise TypeError(
                "FullyShardedDataParallel flattens weights, so that their rows are lost: use "
                "torch.distributed.fsdp.fully_shard instead"
            )
        elif fsdp is not None and isinstance(module, fsdp.FSDPModule):
            found.update(map(_group_of_mesh, _meshes_of(module)))
    return found


def _modules(model: nn.Module) -> Iterable[nn.Module]:
    return (model._orig_mod if isinstance(model, OptimizedModule) else model).modules()


def _meshes_of(module: Any) -> list[DeviceMesh]:
    """The data-parallel meshes of a module that ``fully_shard`` was called on."""
    # The framework says nowhere else which dimensions of a parameter's mesh are data-parallel.
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None)
    groups = [state._fsdp_param_group] if groups is None else groups
    return [group.mesh_info.mesh for group in groups if group is not None]


def _group_of_mesh(mesh: DeviceMesh) -> dist.ProcessGroup:
    """One group of all processes of a mesh, of any number of dimensions."""
    if mesh.ndim == 1:
        return mesh.get_group()
    world, ranks = dist.group.WORLD, tuple(sorted(mesh.mesh.flatten().tolist()))
    assert world is not None
    if len(ranks) == dist.get_world_size():
        return world
    made = _made.setdefault(world, {})
    if ranks not in made:
        # The processes of another part of the world needn't take part.
        group = dist.new_group(list(ranks), use_local_synchronization=True)
        assert isinstance(group, dist.ProcessGroup)
        made[ranks] = group
    return made[ranks]


def _fills_world(model: nn.Module) -> bool:
    """Whether a tensor-parallel mesh takes up all processes, so that none is left for the data."""
    meshes = [param.device_mesh for param in model.parameters() if hasattr(param, "device_mesh")]
    return any(mesh.size() == dist.get_world_size() for mesh in meshes)
