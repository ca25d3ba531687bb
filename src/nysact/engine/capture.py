"""The hooks on a model: which calls are captured, and which of their samples."""

import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import unserializable_hook

from nysact.distributed import check_inputs, local
from nysact.engine.layer import Layer
from nysact.engine.layer_group import LayerGroup
from nysact.engine.sampling import reads_rows, sample
from nysact.engine.statistics import CallQueue, CallStatistics, without_autocast
from nysact.layers import Call, LayerAdapter
from nysact.torch_private import (
    checkpoint_recomputes,
    disable_dynamo,
    hide_hooks,
    is_data_parallel_replica,
    is_fake,
    is_recorded,
    labelled,
    own_parameter,
    register_hidden_hook,
)

DATA_PARALLEL = (
    "nn.DataParallel runs copies of the layers that the optimizer can't observe: use "
    "torch.nn.parallel.DistributedDataParallel (DDP), one process a device"
)


class Capture:
    """Owns the hooks of an optimizer on its model; they go when it does."""

    def __init__(self, modules: Iterable[tuple[nn.Module, Layer, LayerAdapter]]) -> None:
        self.queue = CallQueue()
        self.paused = False
        # Whether a pause could have hidden a call of the step from the hooks.
        self.was_paused = False
        self.hooks = [ForwardHook(*each) for each in modules]
        hide_hooks(module for hook in self.hooks if (module := hook.module()) is not None)
        self.remove = weakref.finalize(self, _remove, self.hooks)
        self.remove.atexit = False

    def begin_step(self, groups: Sequence[LayerGroup]) -> None:
        """Capture the next forwards if the step they lead to takes statistics."""
        self.queue.drop()
        for group in groups:
            group.begin_step()
        for hook in self.hooks if self.remove.alive else ():
            hook.install()
        self.was_paused = False
        self.pause(groups, paused=self.paused)

    def drop(self, layers: Collection[Layer]) -> None:
        """Remove the hooks of some layers for good."""
        _remove(hook for hook in self.hooks if hook.layer in layers)
        self.hooks[:] = [hook for hook in self.hooks if hook.layer not in layers]

    def pause(self, groups: Iterable[LayerGroup], *, paused: bool) -> None:
        """Stop or resume capturing."""
        self.paused = paused
        self.was_paused |= paused
        active = self.remove.alive and not paused
        for group in groups:
            group.window.capturing = group.window.is_open and active


def _remove(hooks: Iterable["ForwardHook"]) -> None:
    for hook in hooks:
        hook.remove()


@disable_dynamo
def _before_accumulation(layer: Layer, gradient: Tensor) -> None:
    held, pending = layer.weight.grad, layer.pending
    # Others changed the gradient since the last accumulation: perhaps they set it to zero.
    zeroed = (
        held is not None
        and pending.has_calls
        and held._version != pending.gradient_version
        and not local(held).any()
    )
    pending.receive(reset=held is None or zeroed)


@disable_dynamo
def _after_accumulation(layer: Layer, weight: Tensor) -> None:
    # fully_shard calls from the stream that reduces gradients, after several backward passes
    # perhaps: the calls are set aside by the step.
    layer.pending.has_gradient = True
    layer.pending.gradient_version = None if weight.grad is None else weight.grad._version
    if not layer.is_sharded:
        layer.pending.set_aside()


class ForwardHook:
    """Captures the calls of one module."""

    def __init__(self, module: nn.Module, layer: Layer, adapter: LayerAdapter) -> None:
        self.module = weakref.ref(module)
        self.layer = layer
        self._adapter = adapter
        self._handle: Any = None
        self._number = next(_numbers)
        self._marker = torch.empty(0, device="cpu")
        _hooks[self._number] = self

    def is_current(self) -> bool:
        """Whether the module still has its weight: pruning and parametrisations move it."""
        module = self.module()
        return module is None or own_parameter(module, self._adapter.weight_name) is not None

    def install(self) -> None:
        """Hook the module, and in steps with statistics its weight if that gets a gradient."""
        module, layer = self.module(), self.layer
        if self._handle is None and module is not None:
            self._handle = register_hidden_hook(module, self)
        if (
            layer.pending.window.is_open
            and layer.weight.requires_grad
            and not layer.pending.handles
        ):
            before, after = (
                # Marked, so that pickling the weight doesn't warn that they are left out.
                unserializable_hook(partial(hook, layer))
                for hook in (_before_accumulation, _after_accumulation)
            )
            layer.pending.handles = [
                layer.weight.register_hook(before),
                layer.weight.register_post_accumulate_grad_hook(after),
            ]

    def remove(self) -> None:
        """Unhook the module and its weight."""
        self.layer.pending.unhook()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __call__(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """Capture one call; other hooks have replaced its inputs by now, if any do."""
        window = self.layer.pending.window
        if not (window.capturing and torch.is_grad_enabled()) or is_recorded():
            return
        call = Call(args, kwargs)
        if not torch.compiler.is_compiling():
            with labelled("nysact.capture"):
                self._record(module, call, output)
        elif window.curvature.observes_outputs or not self._compiles(call):
            self._record_outside_graph(module, call, output)
        else:
            with torch.no_grad():
                inputs = self._inputs(module, call)
                inputs = [each.detach() for each in inputs]
                torch.ops.nysact.capture(inputs, self._number, self._marker)

    @torch.no_grad()
    def _record(self, module: nn.Module, call: Call, output: Any) -> None:
        """Capture a call in its autograd graph: it counts once a backward reaches its output."""
        if is_data_parallel_replica(module):
            raise TypeError(DATA_PARALLEL)
        weight, pending = self.layer.weight, self.layer.pending
        outputs = [output] if isinstance(output, Tensor) else list(_tensors(output))
        if any(is_fake(tensor) for tensor in outputs):
            return
        pending.was_called = True
        differentiable = [tensor for tensor in outputs if tensor.requires_grad]
        if (outputs and not differentiable) or checkpoint_recomputes() or not self.is_current():
            return
        if self.layer.is_sharded and pending.has_gradient and weight.grad is None:
            # fully_shard calls no hook before it accumulates: a reset shows here at the earliest.
            pending.discard()
        statistics = self._measure(module, call, self._inputs(module, call))
        if statistics is None:
            return
        for tensor in differentiable:
            tensor.register_hook(partial(self._arrive, module, statistics))
        if not outputs:
            pending.capture_unhooked(statistics)

    _record_outside_graph = disable_dynamo(_record)

    def _compiles(self, call: Call) -> bool:
        """Whether the inputs alone say how a call multiplies by the weight."""
        alone = len(call.args) + len(call.kwargs) == 1
        return alone or reads_rows(self._adapter) or not self._adapter.uses_call

    def record_compiled(self, inputs: Sequence[Tensor]) -> None:
        """Capture a call of a compiled graph: it counts once a backward reaches the weight."""
        module, pending = self.module(), self.layer.pending
        pending.was_called = True
        if module is None or checkpoint_recomputes() or not self.is_current():
            return
        statistics = self._measure(module, Call(inputs, {}), inputs)
        if statistics:
            pending.capture_unhooked(statistics)

    def _arrive(self, module: nn.Module, statistics: CallStatistics, gradient: Tensor) -> None:
        """A backward pass reached the output of a call."""
        pending = self.layer.pending
        with labelled("nysact.capture"):
            if pending.arrive(statistics) and pending.window.curvature.observes_outputs:
                rows = self._adapter.output_rows(module, gradient)
                statistics.measure_outputs(rows.to(pending.window.dtype))

    def _inputs(self, module: nn.Module, call: Call) -> Sequence[Tensor]:
        """The local part of what a call multiplies by the weight."""
        layer = self.layer
        given = self._adapter.inputs(module, call)
        weight = own_parameter(module, self._adapter.weight_name)
        check_inputs(layer.name, given, weight, layer.ranks)
        return [local(tensor) for tensor in given]

    def _measure(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor]
    ) -> CallStatistics | None:
        """Queue the sampled inputs of a call, or measure them at once if they are large."""
        layer, pending = self.layer, self.layer.pending
        without_values = any(tensor.is_nested or tensor.is_meta for tensor in inputs)
        if not (inputs and layer.weight.requires_grad) or without_values:
            return None
        window, device = pending.window, inputs[0].device
        # Weights that are offloaded stay on the CPU, and their statistics with them.
        offloaded = layer.weight.device.type == "cpu" != device.type
        window.follow(window.device if offloaded else device, layer.statistic_dtype)
        statistics = pending.capture(len(inputs[0]))
        if pending.is_idle(layer.weight._version):
            self.remove()
            return None
        if statistics.samples == 0:
            return statistics
        stride = layer.group["subsample"]
        chosen, scale = sample(self._adapter, module, inputs, stride, window.start)
        size = sum(tensor.numel() for tensor in chosen) * window.dtype.itemsize
        waits = size <= window.queue.LIMIT
        # What waits may be overwritten, unless it is a copy already.
        copy = waits and chosen[0] is inputs[0]
        with without_autocast(device.type):
            rows = [each.detach().to(window.device, window.dtype, copy=copy) for each in chosen]
            linear_map = self._adapter.linear_map(module, call, rows, bias=window.bias)
        statistics.wait(linear_map, scale)
        window.queue.add(statistics, size) if waits else statistics.measure()
        return statistics


# Compiled graphs hold the number of a hook.
_hooks: MutableMapping[int, ForwardHook] = weakref.WeakValueDictionary()
_numbers = count()


# An opaque operator: compilers do not trace it, and do not drop it either, because its schema says
# that it mutates the marker. torch.library.custom_op would check that the marker was mutated, and
# activation checkpointing refuses that check.
_library = torch.library.Library("nysact", "DEF")
_library.define("capture(Tensor[] inputs, int hook, Tensor(a!) marker) -> ()")


@torch.library.impl(_library, "capture", "CompositeExplicitAutograd")
def _capture_compiled(inputs: list[Tensor], hook: int, marker: Tensor) -> None:
    """Capture a call of a compiled graph."""
    if hook in _hooks:
        _hooks[hook].record_compiled(inputs)


def _capture_fake(inputs: list[Tensor], hook: int, marker: Tensor) -> None: ...


torch.library.register_fake("nysact::capture", _capture_fake, lib=_library)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a module returned."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)
