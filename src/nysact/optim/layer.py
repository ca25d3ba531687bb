"""One preconditioned layer: its parameters, its place in a stack and its forward hook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nysact.distributed import is_sharded, local, local_gradient, split_inputs
from nysact.engine.local_shard import LocalShard
from nysact.layers import Geometry, LayerAdapter
from nysact.layers.adapter import Call
from nysact.optim.backlog import LIMIT, uncast
from nysact.torch_private import checkpoint_recomputes, in_transform, is_data_parallel_replica

if TYPE_CHECKING:
    from nysact.optim.stack import LayerStack

# Positions of one sample resemble each other: this many make it worth a look, and no more than
# every 32nd sample is left to speak for the rest.
_ROWS_A_SAMPLE = 16
_LARGEST_STRIDE = 32

DATA_PARALLEL = (
    "nn.DataParallel runs copies of the layers that the optimizer can't observe: use "
    "torch.nn.parallel.DistributedDataParallel (DDP), one process a device"
)
# A statistic taken under one value of the first three means nothing under another.
STRUCTURAL = ("rank", "sketch", "seed", "tail")


@dataclass(eq=False)
class Layer:
    """A weight that is preconditioned, with the modules that share it.

    Attributes:
        names: Names of the modules that use the weight, the first one naming the layer.
        adapter: The geometry.
        geometry: The weight as matrices, the bias not counted.
        part: What of them lies in this process.
        weight: The weight.
        bias: The bias, if it is trained along.
        group: The weight's parameter group.
        ranks: The processes that share batches.
        stack: The layers of equal shape that this one is computed with.
        index: Its place there.
        seen: Samples seen since the last step, to take every n-th over several calls.
        taken: Samples taken since the last step.
        heard: Samples whose outputs' gradients were taken since the last step.
        fired: Whether statistics were taken since the last step.
        reached: Whether a backward pass has reached the weight since they were.
        settled: Whether there are some that were set aside when a forward followed such a pass.
        touched: Whether a backward pass has reached the weight since the last step.
        called: Whether a call of one of the modules was ever observed.
        bypassed: Whether the weight got a gradient without that.
    """

    names: list[str]
    adapter: LayerAdapter
    geometry: Geometry
    part: LocalShard
    weight: nn.Parameter
    bias: nn.Parameter | None
    group: dict[str, Any]
    ranks: frozenset[int] = frozenset()
    stack: LayerStack = field(init=False)
    index: int = field(init=False, default=0)
    seen: int = field(init=False, default=0)
    taken: int = field(init=False, default=0)
    heard: int = field(init=False, default=0)
    fired: bool = field(init=False, default=False)
    reached: bool = field(init=False, default=False)
    settled: bool = field(init=False, default=False)
    touched: bool = field(init=False, default=False)
    called: bool = field(init=False, default=False)
    bypassed: bool = field(init=False, default=False)

    @property
    def name(self) -> str:
        """Name of the first module that uses the weight."""
        return self.names[0]

    @property
    def has_bias(self) -> bool:
        """Whether the covariance has a last row and column for the bias."""
        return self.bias is not None and self.bias.requires_grad

    @property
    def statistic_dtype(self) -> torch.dtype:
        """The weight's dtype, float32 at least."""
        return torch.promote_types(self.weight.dtype, torch.float32)

    def forget(self) -> None:
        """Start counting anew, after a step or when what was observed is dropped."""
        self.seen = self.taken = self.heard = 0
        self.fired = self.reached = self.settled = self.touched = False

    @torch.no_grad()
    def observe(self, module: nn.Module, adapter: LayerAdapter, call: Call) -> None:
        """Take one call's rows for the statistics that await the next step.

        Args:
            module: The module that was called.
            adapter: The module's adapter.
            call: The arguments of its forward.

        Raises:
            TypeError: If the module is a replica made by ``nn.DataParallel``.
            ValueError: If other processes have the same weight and other inputs, and share nothing.
        """
        if is_data_parallel_replica(module):
            raise TypeError(DATA_PARALLEL)
        self.called, self.bypassed = True, False
        if not self.weight.requires_grad or checkpoint_recomputes():
            return
        if self.reached and is_sharded(self.weight) and self.weight.grad is None:
            # No hook of the framework says that a spread gradient is about to arrive.
            self.stack.observed.discard(self)
        elif self.reached:
            self.stack.observed.settle(self)
        # A tensor-parallel layer reads what lies here of its inputs.
        given = adapter.inputs(module, call)
        self._check_spread(module._parameters[adapter.weight_name], given)
        inputs = tuple(local(tensor) for tensor in given)
        if not inputs or any(tensor.is_nested or tensor.is_meta for tensor in inputs):
            return
        # Weights that are offloaded stay where they are, and their statistics with them.
        offloaded = self.weight.device.type == "cpu" != inputs[0].device.type
        stack, observed = self.stack, self.stack.observed
        device = stack.device if offloaded else inputs[0].device
        stack.prepare(device, self.statistic_dtype)
        observed.count(self.index, inputs[0].shape[0])
        chosen = self._sample(module, adapter, inputs)
        if not chosen:
            return
        size = sum(tensor.numel() for tensor in chosen) * stack.dtype.itemsize
        # Compiled code would be compiled anew for every number of calls that wait.
        waits = size <= LIMIT and not torch.compiler.is_compiling()
        # Copied once, since what waits may be overwritten, and a strided batch would be copied by
        # every operation on it.
        copy = waits or chosen is not inputs
        with uncast(chosen[0].device.type):
            rows = [tensor.detach().to(device, stack.dtype, copy=copy) for tensor in chosen]
            linear_map = adapter.linear_map(module, call, rows, bias=stack.bias)
            if waits:
                observed.backlog.add(observed, self.index, linear_map, self.taken, size)
            else:
                observed.add(self.index, linear_map, self.taken)
        self.taken += linear_map.samples
        self.fired = True

    @torch.no_grad()
    def observe_output(
        self, module: nn.Module, adapter: LayerAdapter, samples: int, gradient: Tensor
    ) -> None:
        """Add the gradient of one output to the statistics that await the next step.

        Args:
            module: The module that gave the output.
            adapter: The module's adapter.
            samples: Samples of the call.
            gradient: The output's gradient.
        """
        if self.stack.listening and self.fired:
            rows = adapter.output_rows(module, gradient).to(self.stack.dtype)
            self.stack.observed.add_outputs(self.index, rows, samples, self.heard)
            self.heard += samples

    def _check_spread(self, weight: Any, inputs: Sequence[Tensor]) -> None:
        """Refuse statistics that differ between processes with the same weight."""
        for tensor in inputs:
            spread = split_inputs(tensor, weight, self.ranks)
            if spread:
                raise ValueError(
                    f"the inputs of layer {self.name!r} are spread over processes, as {spread}, "
                    "and its weight is the same on all of them: their preconditioners would "
                    "differ, and the copies of the weight drift apart; build the optimizer with "
                    "process_group= the mesh or group that these processes form"
                )

    def _sample(
        self, module: nn.Module, adapter: LayerAdapter, inputs: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Keep every n-th sample, counted on from the calls since the last step."""
        samples = inputs[0].shape[0]
        if samples == 0:
            return ()
        stride = self.group["subsample"]
        if stride == "auto":
            positions = adapter.positions(module, inputs)
            stride = min(max(1, positions // _ROWS_A_SAMPLE), _LARGEST_STRIDE)
        start = -self.seen % stride
        self.seen = (self.seen + samples) % stride
        if start >= samples:
            return ()
        return inputs if stride == 1 else [tensor[start::stride] for tensor in inputs]

    def gradients(self) -> tuple[Tensor, Tensor | None]:
        """Give what lies in this process of the gradients, as matrices.

        Returns:
            That of the weight, ``(groups, out, fan_in)``, and that of the bias where it is
            preconditioned along, ``(groups, out)``; both in the statistic's dtype.
        """
        dtype = self.stack.dtype
        weight = self.part.to_matrix(self.adapter, local_gradient(self.weight)).to(dtype)
        if not self.stack.bias:
            return weight, None
        assert self.bias is not None
        if self.bias.grad is None:
            return weight, weight.new_zeros(weight.shape[:2])
        return weight, self.part.to_rows(local_gradient(self.bias)).to(dtype)

    def place(self, weight: Tensor, bias: Tensor | None) -> dict[Tensor, Tensor]:
        """Undo :meth:`gradients`.

        Args:
            weight: ``(groups, out, fan_in)``.
            bias: ``(groups, out)`` or none.

        Returns:
            For each parameter that has a gradient a tensor of the shape, dtype and layout of what
            lies in this process of it.
        """
        like = local(self.weight)
        outcome = self.part.from_matrix(self.adapter, weight, like)
        if outcome.dtype != like.dtype or outcome.stride() != like.stride():
            # In the weight's own layout, so that the update runs on tensors of one layout.
            outcome = torch.empty_like(like).copy_(outcome)
        parts: dict[Tensor, Tensor] = {self.weight: outcome}
        if bias is not None and self.bias is not None and self.bias.grad is not None:
            parts[self.bias] = self.part.from_rows(bias, local(self.bias)).to(self.bias.dtype)
        return parts


def settings_of(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Pick the settings that a parameter group's curvature is built with.

    Args:
        group: The group.

    Returns:
        Rank, sketch, seed and tail, ``None`` for what the group doesn't have.
    """
    return tuple(group.get(name) for name in STRUCTURAL)


class CaptureHook:
    """Forward pre-hook that lets a layer observe its inputs.

    A copy of it, made when the model is copied or pickled, is inert: it belongs to no optimizer.

    Args:
        layer: The layer, or ``None`` for an inert hook.
        adapter: The module's adapter.
    """

    def __init__(self, layer: Layer | None = None, adapter: LayerAdapter | None = None) -> None:
        self._layer = layer
        self._adapter = adapter

    def __call__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Observe one call.

        Args:
            module: The module that is called.
            args: Positional arguments of its forward.
            kwargs: Keyword arguments of its forward.
        """
        layer, adapter = self._layer, self._adapter
        if layer is None or adapter is None:
            return
        if layer.stack.listening and torch.is_grad_enabled() and not in_transform():
            layer.observe(module, adapter, Call(args, kwargs))

    def __deepcopy__(self, memo: dict[int, Any]) -> CaptureHook:
        """Copy to an inert hook."""
        return type(self)()

    def __reduce__(self) -> tuple[type[CaptureHook], tuple[()]]:
        """Pickle as an inert hook."""
        return type(self), ()


class OutputHook(CaptureHook):
    """Forward hook that lets a layer observe the gradient of its output.

    Args:
        layer: The layer, or ``None`` for an inert hook.
        adapter: The module's adapter.
    """

    def __call__(  # type: ignore[override]
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """Wait for the gradient of one output.

        Args:
            module: The module that was called.
            args: Positional arguments of its forward.
            kwargs: Keyword arguments of its forward.
            output: What its forward returned.
        """
        layer, adapter = self._layer, self._adapter
        if layer is None or adapter is None or not layer.stack.listening:
            return
        if torch.is_grad_enabled() and output.requires_grad and not in_transform():
            samples = adapter.inputs(module, Call(args, kwargs))[0].shape[0]
            output.register_hook(partial(layer.observe_output, module, adapter, samples))


class GradientHooks:
    """Hooks on a weight that keep its statistics in step with its gradient.

    What was observed for a gradient that was dropped, of a skipped step say, is dropped too. The
    optimizer's ``zero_grad`` says so at once; the model's shows when the next gradient arrives.

    Args:
        layer: The weight's layer.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.handles = [
            layer.weight.register_hook(self._before),
            layer.weight.register_post_accumulate_grad_hook(self._after),
        ]

    def _before(self, gradient: Tensor) -> None:
        del gradient
        if self._layer.settled and self._layer.weight.grad is None:
            self._layer.stack.observed.discard_settled(self._layer)

    def _after(self, weight: Tensor) -> None:
        if not is_sharded(weight):
            # fully_shard calls from the stream that reduces gradients; what waits was copied on
            # that of the forward, and is worked off there.
            self._layer.stack.observed.backlog.work_off()
        self._layer.reached, self._layer.touched = self._layer.fired, True
