"""The hooks on a model: which calls are captured, and which of their samples."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from nysact.distributed import local, split_inputs
from nysact.engine.layer import Layer
from nysact.engine.layer_group import LayerGroup
from nysact.engine.statistics import CallQueue, CallStatistics, without_autocast
from nysact.layers import Call, LayerAdapter
from nysact.torch_private import (
    checkpoint_recomputes,
    disable_dynamo,
    in_transform,
    is_data_parallel_replica,
    own_parameters,
)

# The positions of one sample are alike: beyond this many a sample, fewer samples suffice, but no
# fewer than every 32nd.
_ROWS_PER_SAMPLE = 16
_LARGEST_STRIDE = 32

DATA_PARALLEL = (
    "nn.DataParallel runs copies of the layers that the optimizer can't observe: use "
    "torch.nn.parallel.DistributedDataParallel (DDP), one process a device"
)

Handles = list[Any]


class Capture:
    """Owns the hooks of an optimizer on its model; they go when it does."""

    def __init__(self, modules: Iterable[tuple[nn.Module, Layer, LayerAdapter]]) -> None:
        self.queue = CallQueue()
        self.paused = False
        # Whether a pause could have hidden a call of the step from the hooks.
        self.was_paused = False
        self._handles: Handles = [
            module.register_forward_hook(ForwardHook(layer, adapter), with_kwargs=True)
            for module, layer, adapter in modules
        ]
        self._gradient_handles: Handles = []
        self.remove = weakref.finalize(self, _remove, self._handles, self._gradient_handles)
        self.remove.atexit = False

    @property
    def is_active(self) -> bool:
        """Whether the hooks are there and calls count."""
        return self.remove.alive and not self.paused

    def begin_step(self, groups: Iterable[LayerGroup]) -> None:
        """Capture the next forwards if the step they lead to takes statistics."""
        self.was_paused = self.paused
        _remove(self._gradient_handles)
        self._gradient_handles.clear()
        self.queue.drop()
        for group in groups:
            group.batch.capturing = group.takes_statistics and self.is_active
            if group.takes_statistics:
                group.open()
                self._watch_gradients(group.layers)
            else:
                group.close()

    def pause(self, groups: Iterable[LayerGroup], *, paused: bool) -> None:
        """Stop or resume capturing."""
        self.paused = paused
        self.was_paused |= paused
        for group in groups:
            group.batch.capturing = group.takes_statistics and self.is_active

    def _watch_gradients(self, layers: Iterable[Layer]) -> None:
        """Hook the weights that get a gradient, in steps with statistics alone."""
        if not self.remove.alive:
            return
        for layer in layers:
            if layer.weight.requires_grad:
                before = partial(_before_accumulation, layer)
                after = partial(_after_accumulation, layer)
                self._gradient_handles += [
                    layer.weight.register_hook(before),
                    layer.weight.register_post_accumulate_grad_hook(after),
                ]


def _remove(*lists: Handles) -> None:
    for handles in lists:
        for handle in handles:
            handle.remove()


@disable_dynamo
def _before_accumulation(layer: Layer, gradient: Tensor) -> None:
    layer.pending.receive(reset=layer.weight.grad is None)


@disable_dynamo
def _after_accumulation(layer: Layer, weight: Tensor) -> None:
    # fully_shard calls from the stream that reduces gradients, after several backward passes
    # perhaps: the calls are set aside by the step.
    layer.pending.has_gradient = True
    if not layer.is_sharded:
        layer.pending.set_aside()


class ForwardHook:
    """Captures the calls of one module; a copy or pickle of it, with its model, does nothing."""

    def __init__(self, layer: Layer | None = None, adapter: LayerAdapter | None = None) -> None:
        self._layer = layer
        self._adapter = adapter

    def __deepcopy__(self, memo: dict[int, Any]) -> ForwardHook:
        return type(self)()

    def __reduce__(self) -> tuple[type[ForwardHook], tuple[()]]:
        return type(self), ()

    def __call__(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """Capture one call; other hooks have replaced its inputs by now, if any do."""
        layer, adapter = self._layer, self._adapter
        if layer is None or adapter is None or not layer.pending.batch.capturing:
            return
        if not torch.is_grad_enabled() or in_transform():
            return
        if not torch.compiler.is_compiling():
            with record_function("nysact.capture"):
                _record(layer, adapter, module, Call(args, kwargs), output)
        elif layer.pending.batch.curvature.observes_outputs:
            _record_outside_graph(layer, adapter, module, Call(args, kwargs), output)
        else:
            _trace(layer, adapter, module, Call(args, kwargs))


@torch.no_grad()
def _record(
    layer: Layer, adapter: LayerAdapter, module: nn.Module, call: Call, output: Any
) -> None:
    """Capture a call in its autograd graph: it counts once a backward pass reaches its output."""
    if is_data_parallel_replica(module):
        raise TypeError(DATA_PARALLEL)
    pending = layer.pending
    pending.was_called = True
    outputs = list(_tensors(output))
    differentiable = [tensor for tensor in outputs if tensor.requires_grad]
    counts = bool(differentiable) or not outputs
    if not (counts and layer.weight.requires_grad) or checkpoint_recomputes():
        return
    if layer.is_sharded and pending.has_gradient and layer.weight.grad is None:
        # fully_shard calls no hook before it accumulates: a reset shows here at the earliest.
        pending.discard()
    inputs = _inputs(layer, adapter, module, call)
    if not inputs:
        return
    statistics = CallStatistics(pending.batch, pending.index, pending.sampled, inputs[0].shape[0])
    _sample_and_measure(statistics, layer, adapter, module, call, inputs)
    for tensor in differentiable:
        tensor.register_hook(partial(_arrive, layer, adapter, module, statistics))
    if not outputs:
        pending.capture_unhooked(statistics)


_record_outside_graph = disable_dynamo(_record)


def _arrive(
    layer: Layer,
    adapter: LayerAdapter,
    module: nn.Module,
    statistics: CallStatistics,
    gradient: Tensor,
) -> None:
    """A backward pass reached the output of a call."""
    batch = layer.pending.batch
    with record_function("nysact.capture"):
        if layer.pending.arrive(statistics) and batch.curvature.observes_outputs:
            statistics.measure_outputs(adapter.output_rows(module, gradient).to(batch.dtype))


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a module returned."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)


def _inputs(
    layer: Layer, adapter: LayerAdapter, module: nn.Module, call: Call
) -> tuple[Tensor, ...]:
    """The local part of the tensors that a call multiplies by the weight; none without values."""
    given = adapter.inputs(module, call)
    _check_sharding(layer, own_parameters(module)[adapter.weight_name], given)
    inputs = tuple(local(tensor) for tensor in given)
    if any(tensor.is_nested or tensor.is_meta for tensor in inputs):
        return ()
    if inputs:
        # Weights that are offloaded stay on the CPU, and their statistics with them.
        offloaded = layer.weight.device.type == "cpu" != inputs[0].device.type
        batch = layer.pending.batch
        batch.follow(batch.device if offloaded else inputs[0].device, layer.statistic_dtype)
    return inputs


def _check_sharding(layer: Layer, weight: Any, inputs: Sequence[Tensor]) -> None:
    """Refuse statistics that differ between ranks with the same weight."""
    for tensor in inputs:
        split = split_inputs(tensor, weight, layer.ranks)
        if split:
            raise ValueError(
                f"the inputs of layer {layer.name!r} are sharded over processes, as {split}, and "
                "its weight is the same on all of them: their preconditioners would differ, and "
                "the replicas of the weight drift apart; build the optimizer with process_group= "
                "the mesh or group that these processes form"
            )


def _sample_and_measure(
    statistics: CallStatistics,
    layer: Layer,
    adapter: LayerAdapter,
    module: nn.Module,
    call: Call,
    inputs: Sequence[Tensor],
) -> None:
    """Queue the sampled inputs of a call, or measure them at once if they are large."""
    pending, batch = layer.pending, layer.pending.batch
    chosen = _sample(layer, adapter, module, inputs)
    pending.offset += inputs[0].shape[0]
    if not chosen:
        return
    size = sum(tensor.numel() for tensor in chosen) * batch.dtype.itemsize
    waits = size <= batch.queue.LIMIT
    # Copied once: what waits may be overwritten, and every operation would copy a strided batch.
    linear_map = _linear_map(
        layer, adapter, module, call, chosen, copy=waits or chosen is not inputs
    )
    statistics.wait(linear_map)
    pending.sampled += linear_map.samples
    batch.queue.add(statistics, size) if waits else statistics.measure()


def _linear_map(
    layer: Layer,
    adapter: LayerAdapter,
    module: nn.Module,
    call: Call,
    chosen: Sequence[Tensor],
    *,
    copy: bool,
) -> Any:
    """The linear map that the chosen inputs induce, in the dtype of the statistics."""
    batch = layer.pending.batch
    with without_autocast(chosen[0].device.type):
        rows = [tensor.detach().to(batch.device, batch.dtype, copy=copy) for tensor in chosen]
        return adapter.linear_map(module, call, rows, bias=batch.bias)


def _sample(
    layer: Layer, adapter: LayerAdapter, module: nn.Module, inputs: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Every n-th sample, counted on from the calls since the last step."""
    samples = inputs[0].shape[0]
    if samples == 0:
        return ()
    stride = layer.group["subsample"]
    if stride == "auto":
        positions = adapter.positions(module, inputs)
        stride = min(max(1, positions // _ROWS_PER_SAMPLE), _LARGEST_STRIDE)
    start = -layer.pending.offset % stride
    if start >= samples:
        return ()
    return inputs if stride == 1 else [tensor[start::stride] for tensor in inputs]


@torch.no_grad()
def _trace(layer: Layer, adapter: LayerAdapter, module: nn.Module, call: Call) -> None:
    """Capture a call inside a compiled graph; it counts once a backward pass reaches the weight."""
    pending = layer.pending
    pending.was_called = True
    if not layer.weight.requires_grad:
        return
    inputs = _inputs(layer, adapter, module, call)
    chosen = _sample(layer, adapter, module, inputs) if inputs else ()
    if not chosen:
        return
    linear_map = _linear_map(layer, adapter, module, call, chosen, copy=chosen is not inputs)
    pending.batch.add_traced(pending.index, linear_map)
    # The graph is compiled for every offset that it meets: keep to few.
    pending.offset = (pending.offset + inputs[0].shape[0]) % _LARGEST_STRIDE
    pending.traced = True
