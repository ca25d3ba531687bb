"""The process groups that a model's gradients are reduced over."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NoReturn, TypeAlias
from weakref import WeakKeyDictionary

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from nysact.torch_private import active_ddp, fsdp_meshes, in_join, shards_shown, uncompiled

# A sum over several groups goes over one after the other: within nodes, then across them, say.
Group: TypeAlias = "dist.ProcessGroup | DeviceMesh | Sequence[dist.ProcessGroup]"

# Groups made for meshes of several dimensions, by their ranks: shared by all optimizers of a world.
_mesh_groups: MutableMapping[dist.ProcessGroup, dict[tuple[int, ...], dist.ProcessGroup]]
_mesh_groups = WeakKeyDictionary()


def several_running() -> bool:
    """Whether torch.distributed runs more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def wrapper_of(model: nn.Module) -> DistributedDataParallel | None:
    """The first DistributedDataParallel that the model is or holds, or whose forward calls it."""
    inner, active = uncompiled(model), active_ddp()
    found = [module for module in inner.modules() if isinstance(module, DistributedDataParallel)]
    if active is not None and any(module is inner for module in active.modules()):
        found.append(active)
    return next(iter(found), None)


def groups_of_model(model: nn.Module) -> set[dist.ProcessGroup]:
    """Process groups that the model's wrappers reduce gradients over."""
    wrapper = wrapper_of(model)
    found = set[dist.ProcessGroup]() if wrapper is None else {wrapper.process_group}
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")  # imported if the model is wrapped in it
    for module in uncompiled(model).modules():
        if isinstance(module, DistributedDataParallel):
            found.add(module.process_group)
        elif fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel):
            raise TypeError(
                "the model is wrapped in FullyShardedDataParallel, which flattens weights and "
                "loses their rows: use torch.distributed.fsdp.fully_shard instead"
            )
        elif fsdp is not None and isinstance(module, fsdp.FSDPModule):
            found.update(map(group_of_mesh, fsdp_meshes(module)))
    return found


def sharded_parameters(model: nn.Module) -> AbstractContextManager[None]:
    """Show the shards that ``fully_shard`` hides while a forward runs."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return shards_shown([m for m in model.modules() if fsdp and isinstance(m, fsdp.FSDPModule)])


def group_of_mesh(mesh: DeviceMesh) -> dist.ProcessGroup:
    """One group of all ranks of a mesh of any number of dimensions."""
    if mesh.ndim == 1:
        return mesh.get_group()
    world, ranks = dist.group.WORLD, tuple(sorted(mesh.mesh.flatten().tolist()))
    assert world is not None
    if len(ranks) == dist.get_world_size():
        return world
    made = _mesh_groups.setdefault(world, {})
    if ranks not in made:
        # Ranks outside the mesh need not take part.
        group = dist.new_group(list(ranks), use_local_synchronization=True)
        assert isinstance(group, dist.ProcessGroup)
        made[ranks] = group
    return made[ranks]


def fills_world(model: nn.Module) -> bool:
    """Whether a tensor-parallel mesh holds all ranks, so that none share batches."""
    meshes = [param.device_mesh for param in model.parameters() if hasattr(param, "device_mesh")]
    return any(mesh.size() == dist.get_world_size() for mesh in meshes)


def check_type(process_group: Any) -> None:
    """Raise TypeError unless this is a valid value of process_group=."""
    known = dist.ProcessGroup if dist.is_available() else ()
    single = process_group is None or process_group is False
    if not (single or isinstance(process_group, (known, DeviceMesh, list, tuple))):
        raise TypeError(
            f"process_group={process_group!r}, expected a ProcessGroup, a DeviceMesh, a sequence "
            "of ProcessGroups, False for no reduction, or None to find it from the model"
        )


def given_groups(process_group: Group | Literal[False]) -> Sequence[dist.ProcessGroup]:
    """Process groups that process_group= names, checked."""
    check_type(process_group)
    if process_group is False:
        return ()
    if isinstance(process_group, DeviceMesh):
        return (group_of_mesh(process_group),)
    groups = [process_group] if isinstance(process_group, dist.ProcessGroup) else process_group
    if not groups:
        raise ValueError(
            f"process_group={process_group!r} is empty, expected at least one ProcessGroup, or "
            "False for no reduction"
        )
    for group in groups:
        check_type(group)
        if dist.get_rank(group) < 0:
            raise ValueError(
                f"process_group={process_group!r} does not contain this process, rank "
                f"{dist.get_rank()}: pass each process a group that contains it"
            )
    return tuple(groups)


def refuse_join() -> NoReturn:
    """Refuse uneven batches: a rank without one would miss the sums of the statistics."""
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
