"""The hooks on a model: which calls are captured, and which of their samples."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from nysact.distributed import check_inputs, local
from nysact.engine.layer import Layer
from nysact.engine.layer_group import LayerGroup
from nysact.engine.sampling import sample
from nysact.engine.statistics import CallQueue, CallStatistics, without_autocast
from nysact.layers import Call, LayerAdapter, LinearMap
from nysact.torch_private import (
    checkpoint_recomputes,
    disable_dynamo,
    in_transform,
    is_data_parallel_replica,
    own_parameter,
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
        self._gradient_handles: list[Any] = []
        handles: list[Any] = [
            module.register_forward_hook(ForwardHook(layer, adapter), with_kwargs=True)
            for module, layer, adapter in modules
        ]
        self.remove = weakref.finalize(self, _remove, handles, self._gradient_handles)
        self.remove.atexit = False

    def begin_step(self, groups: Sequence[LayerGroup]) -> None:
        """Capture the next forwards if the step they lead to takes statistics."""
        _remove(self._gradient_handles)
        self.queue.drop()
        for group in groups:
            if group.takes_statistics:
                group.open()
                self._watch_gradients(group.layers)
            else:
                group.close()
        self.was_paused = False
        self.pause(groups, paused=self.paused)

    def pause(self, groups: Iterable[LayerGroup], *, paused: bool) -> None:
        """Stop or resume capturing."""
        self.paused = paused
        self.was_paused |= paused
        active = self.remove.alive and not paused
        for group in groups:
            group.batch.capturing = group.takes_statistics and active

    def _watch_gradients(self, layers: Iterable[Layer]) -> None:
        """Hook the weights that get a gradient, in steps with statistics alone."""
        for layer in layers if self.remove.alive else ():
            if layer.weight.requires_grad:
                before = partial(_before_accumulation, layer)
                after = partial(_after_accumulation, layer)
                self._gradient_handles += [
                    layer.weight.register_hook(before),
                    layer.weight.register_post_accumulate_grad_hook(after),
                ]


def _remove(*lists: list[Any]) -> None:
    for handles in lists:
        for handle in handles:
            handle.remove()
        handles.clear()


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


class CopiedHook:
    """What a :class:`ForwardHook` becomes in a copy or pickle of the model: it does nothing."""

    def __call__(self, *args: Any) -> None: ...


class ForwardHook:
    """Captures the calls of one module."""

    def __init__(self, layer: Layer, adapter: LayerAdapter) -> None:
        self._layer = layer
        self._adapter = adapter

    def __reduce__(self) -> tuple[type[CopiedHook], tuple[()]]:
        return CopiedHook, ()

    def __call__(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """Capture one call; other hooks have replaced its inputs by now, if any do."""
        batch, call = self._layer.pending.batch, Call(args, kwargs)
        if not (batch.capturing and torch.is_grad_enabled()) or in_transform():
            return
        if not torch.compiler.is_compiling():
            with record_function("nysact.capture"):
                self._record(module, call, output)
        elif batch.curvature.observes_outputs or not self._adapter.traceable:
            self._record_outside_graph(module, call, output)
        else:
            self._trace(module, call)

    @torch.no_grad()
    def _record(self, module: nn.Module, call: Call, output: Any) -> None:
        """Capture a call in its autograd graph: it counts once a backward reaches its output."""
        if is_data_parallel_replica(module):
            raise TypeError(DATA_PARALLEL)
        weight, pending = self._layer.weight, self._layer.pending
        pending.was_called = True
        outputs = list(_tensors(output))
        differentiable = [tensor for tensor in outputs if tensor.requires_grad]
        counts = bool(differentiable) or not outputs
        if not (counts and weight.requires_grad) or checkpoint_recomputes():
            return
        if self._layer.is_sharded and pending.has_gradient and weight.grad is None:
            # fully_shard calls no hook before it accumulates: a reset shows here at the earliest.
            pending.discard()
        inputs = self._inputs(module, call)
        if not inputs:
            return
        statistics = CallStatistics(pending.batch, pending.index, pending.samples, len(inputs[0]))
        self._sample_and_measure(statistics, module, call, inputs)
        for tensor in differentiable:
            tensor.register_hook(partial(self._arrive, module, statistics))
        if not outputs:
            pending.capture_unhooked(statistics)

    _record_outside_graph = disable_dynamo(_record)

    def _arrive(self, module: nn.Module, statistics: CallStatistics, gradient: Tensor) -> None:
        """A backward pass reached the output of a call."""
        pending = self._layer.pending
        with record_function("nysact.capture"):
            if pending.arrive(statistics) and pending.batch.curvature.observes_outputs:
                rows = self._adapter.output_rows(module, gradient)
                statistics.measure_outputs(rows.to(pending.batch.rows.dtype))

    @torch.no_grad()
    def _trace(self, module: nn.Module, call: Call) -> None:
        """Capture a call in a compiled graph: it counts once a backward pass reaches the weight."""
        pending = self._layer.pending
        pending.was_called = True
        if not self._layer.weight.requires_grad:
            return
        inputs = self._inputs(module, call)
        if not inputs or inputs[0].shape[0] == 0:
            return
        chosen, scale = self._sample(module, inputs, pending.batch.start_traced())
        linear_map = self._linear_map(module, call, chosen)
        pending.batch.add_traced(pending.index, linear_map, scale)
        pending.traced = True

    def _inputs(self, module: nn.Module, call: Call) -> Sequence[Tensor]:
        """The local part of what a call multiplies by the weight; none without values."""
        layer, batch = self._layer, self._layer.pending.batch
        given = self._adapter.inputs(module, call)
        weight = own_parameter(module, self._adapter.weight_name)
        check_inputs(layer.name, given, weight, layer.ranks)
        inputs = tuple(local(tensor) for tensor in given)
        if any(tensor.is_nested or tensor.is_meta for tensor in inputs):
            return ()
        if inputs:
            # Weights that are offloaded stay on the CPU, and their statistics with them.
            offloaded = layer.weight.device.type == "cpu" != inputs[0].device.type
            batch.follow(
                batch.rows.device if offloaded else inputs[0].device, layer.statistic_dtype
            )
        return inputs

    def _sample_and_measure(
        self, statistics: CallStatistics, module: nn.Module, call: Call, inputs: Sequence[Tensor]
    ) -> None:
        """Queue the sampled inputs of a call, or measure them at once if they are large."""
        pending, batch = self._layer.pending, self._layer.pending.batch
        if statistics.samples == 0:
            return
        chosen, scale = self._sample(module, inputs, batch.start)
        pending.samples += statistics.samples
        size = sum(tensor.numel() for tensor in chosen) * batch.rows.dtype.itemsize
        waits = size <= batch.queue.LIMIT
        # What waits may be overwritten, unless it is a copy already.
        copy = waits and chosen[0] is inputs[0]
        statistics.wait(self._linear_map(module, call, chosen, copy=copy), scale)
        batch.queue.add(statistics, size) if waits else statistics.measure()

    def _sample(
        self, module: nn.Module, inputs: Sequence[Tensor], start: int | Tensor
    ) -> tuple[Sequence[Tensor], float]:
        return sample(self._adapter, module, inputs, self._layer.group["subsample"], start)

    def _linear_map(
        self, module: nn.Module, call: Call, chosen: Sequence[Tensor], *, copy: bool = False
    ) -> LinearMap:
        """The linear map that the chosen inputs induce, in the dtype of the statistics."""
        batch, like = self._layer.pending.batch, self._layer.pending.batch.rows
        with without_autocast(chosen[0].device.type):
            rows = [tensor.detach().to(like.device, like.dtype, copy=copy) for tensor in chosen]
            return self._adapter.linear_map(module, call, rows, bias=batch.bias)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a module returned."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)
