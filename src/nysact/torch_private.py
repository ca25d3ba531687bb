"""Every private part of torch that the library uses, and why; checked with torch 2.11 and 2.14.

Nothing here imports ``torch._dynamo`` or ``torch.distributed.tensor``: both are slow to import, and
a program that uses them has imported them already.
"""

from __future__ import annotations

import copy
import gc
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# Names that torch.compile, FSDP and activation checkpointing insert into parameter names.
WRAPPER_NAMES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

disable_dynamo = _disable_dynamo  # torch.optim marks its steps with it

# The backward pass that is running in this thread, or -1, and whether it keeps its graph for
# another one: hooks are told neither.
backward_id = torch._C._current_graph_task_id
backward_retains_graph = torch._C._autograd._get_current_graph_task_keep_graph

# One kernel for many tensors, in place: what torch.optim is made of has no public name.
foreach_mul = torch._foreach_mul_
foreach_copy = torch._foreach_copy_
foreach_lerp = torch._foreach_lerp_

# The last Join of each wrapper that is known to be over.
_finished_joins: MutableMapping[DistributedDataParallel, Any] = WeakKeyDictionary()


def own_parameters(module: nn.Module) -> Mapping[str, nn.Parameter | None]:
    """The module's own parameters by name; a parametrised one is none, but still an attribute."""
    return module._parameters


def own_parameter(module: nn.Module, name: str) -> nn.Parameter | None:
    """A parameter by its name, which may begin with a submodule's; a parametrised one is none."""
    owner, _, name = name.rpartition(".")
    return module.get_submodule(owner)._parameters.get(name)


def is_data_parallel_replica(module: nn.Module) -> bool:
    """Whether nn.DataParallel made this module; it marks its copies in no public way."""
    return getattr(module, "_is_replica", False)


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper, which has no public way to it."""
    dynamo = sys.modules.get("torch._dynamo")
    wrapper = getattr(dynamo, "OptimizedModule", None)
    return model._orig_mod if wrapper is not None and isinstance(model, wrapper) else model


class HiddenHooks(OrderedDict[int, Any]):
    """A module's table of forward hooks, some of which only calls of the module see.

    Copies and pickles of the module, scripting and quantisation take the others alone. Calls read
    the table by its items.
    """

    hidden: frozenset[int] = frozenset()

    def shown(self) -> OrderedDict[int, Any]:
        return OrderedDict((key, hook) for key, hook in self.items() if key not in self.hidden)

    def values(self) -> Any:
        return self.shown().values()

    def copy(self) -> Any:
        return self.shown()

    def __deepcopy__(self, memo: dict[int, Any]) -> OrderedDict[int, Any]:
        return copy.deepcopy(self.shown(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.shown().__reduce_ex__(protocol)


HookKind = Literal["forward", "forward_pre"]


def _tables(kind: HookKind) -> tuple[str, str]:
    return f"_{kind}_hooks", f"_{kind}_hooks_with_kwargs"


def hide_hooks(modules: Iterable[nn.Module], kind: HookKind = "forward") -> None:
    """Give modules tables that can hide hooks; those that are there stay in sight."""
    replaced: dict[int, tuple[Any, HiddenHooks]] = {}
    for module in modules:
        for name in _tables(kind):
            hooks = getattr(module, name)
            if type(hooks) is not HiddenHooks:
                hidden = HiddenHooks(hooks)
                setattr(module, name, hidden)
                if hooks:
                    replaced[id(hooks)] = hooks, hidden
    # The handles of hooks that are there remove them from the tables that they know.
    for handle in gc.get_objects() if replaced else ():
        if type(handle) is RemovableHandle:
            handle.hooks_dict_ref = _moved(handle.hooks_dict_ref, replaced)
            handle.extra_dict_ref = tuple(_moved(ref, replaced) for ref in handle.extra_dict_ref)


def _moved(table: Any, replaced: Mapping[int, tuple[Any, HiddenHooks]]) -> Any:
    """A weak reference to what replaced a table."""
    found = replaced.get(id(table()))
    return table if found is None else weakref.ref(found[1])


def register_hidden_hook(
    module: nn.Module, hook: Any, kind: HookKind = "forward"
) -> RemovableHandle:
    """Register a hook that nothing but calls of the module sees, after :func:`hide_hooks`."""
    handle: RemovableHandle = getattr(module, f"register_{kind}_hook")(hook, with_kwargs=True)
    for name in _tables(kind):
        getattr(module, name).hidden |= {handle.id}
    return handle


def labelled(name: str) -> AbstractContextManager[Any]:
    """Label what runs inside for a profiler; without one a label costs as much as a small layer."""
    return torch.profiler.record_function(name) if _profiling() else nullcontext()


_profiling = torch._C._autograd._profiler_enabled
_MODES = tuple(
    getattr(torch._C._TorchDispatchModeKey, name) for name in ("FAKE", "PROXY", "FUNCTIONAL")
)


def is_recorded() -> bool:
    """Whether this call is transformed, exported, traced or faked, and so no part of a training."""
    # Tensors of such a call must not outlive it, and ours must not enter it.
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        torch._C._functorch.maybe_current_level() is not None
        or torch._C._get_tracing_state() is not None
        or any(torch._C._get_dispatch_mode(mode) is not None for mode in _MODES)
    )


def is_fake(tensor: Tensor) -> bool:
    """Whether the tensor belongs to an export or a trace and so has no values."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return module is not None and isinstance(tensor, module.FakeTensor)


def checkpoint_recomputes() -> bool:
    """Whether activation checkpointing repeats a forward; nothing but the call stack tells."""
    # A reentrant checkpoint runs its first forward without gradients, so that only the second one
    # is seen: its frame is another one.
    if torch.compiler.is_compiling() or backward_id() == -1:
        return False
    return any(
        frame.f_code.co_name == "recompute_fn"
        and frame.f_globals.get("__name__") == "torch.utils.checkpoint"
        for frame, _ in walk_stack(sys._getframe())
    )


def active_ddp() -> DistributedDataParallel | None:
    """The DistributedDataParallel whose forward is running; a module does not know its wrapper."""
    return DistributedDataParallel._active_ddp_module


def in_join(wrapper: DistributedDataParallel) -> bool:
    """Whether the wrapper is inside a Join; the flag that a Join sets stays set after its end."""
    config = wrapper._join_config
    if not config.enable or _finished_joins.get(wrapper) is config:
        return False
    joins = [found for found in gc.get_objects() if type(found) is Join]
    if any(each is wrapper for join in joins for each in join._joinables):
        return True
    # Looking through all objects takes a tenth of a second: once for each Join.
    _finished_joins[wrapper] = config
    return False


def fsdp_meshes(module: Any) -> list[DeviceMesh]:
    """Data-parallel meshes of a module that fully_shard was called on; only its state has them."""
    return [group.mesh_info.mesh for group in _fsdp_groups(module)]


def _fsdp_groups(module: Any) -> list[Any]:
    state = module._get_fsdp_state()
    # torch 2.11 has one group in a state, 2.14 a list.
    groups = getattr(state, "_fsdp_param_groups", None)
    groups = [state._fsdp_param_group] if groups is None else groups
    return [group for group in groups if group is not None]


@contextmanager
def shards_shown(modules: Sequence[Any]) -> Iterator[None]:
    """Let modules hold the shards of fully_shard in the midst of a forward, which hides them."""
    groups = [group for module in modules for group in _fsdp_groups(module)]
    params = [param for group in groups for param in group.fsdp_params]
    infos = [param._module_info for param in params]
    held = [getattr(info.module, info.param_name) for info in infos]
    for param in params:
        param._setattr_on_modules(param.sharded_param)
    try:
        yield
    finally:
        for param, before in zip(params, held, strict=True):
            param._setattr_on_modules(before)


def first_local_row(tensor: Any) -> int:
    """Row of the whole tensor that this shard begins with, by torch's rule for uneven shards."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offsets = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return int(offsets[0])
