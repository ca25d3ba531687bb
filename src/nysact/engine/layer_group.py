"""Layers of one shape: their statistics, factors and gradients are batches of matrices."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, Shape, Tensors
from nysact.distributed import local, local_gradient, placement_of
from nysact.engine.factors import NEVER, Factors
from nysact.engine.failures import RefreshFailures
from nysact.engine.layer import Layer
from nysact.engine.pending import PendingStatistics, Window
from nysact.engine.sampling import start_of
from nysact.engine.statistics import ROWS, CallQueue, RunningStatistics

# Elements of the gradients that are multiplied together. A GPU wants few and large calls; on a CPU
# gradients that exceed its cache are multiplied layer by layer, without a copy.
_ELEMENTS, _BATCH_ELEMENTS = 2**24, {"cpu": 2**18}
# The options that the curvature is built with. State has another meaning with another value of the
# first three.
STRUCTURAL = ("rank", "sketch", "seed", "tail", "power", "memory")


def structure_of(options: Mapping[str, Any]) -> tuple[Any, ...]:
    """The structural options of a parameter group, ``None`` for those it lacks."""
    return tuple(options.get(name) for name in STRUCTURAL)


def group_key(layer: Layer) -> tuple[Any, ...]:
    """What the layers of one group have in common."""
    weight, options = layer.weight, layer.group
    common = (id(options), layer.geometry, layer.has_bias, weight.dtype, weight.device)
    return (*common, layer.adapter.convolves, placement_of(weight), structure_of(options))


class LayerGroup:
    """Layers of equal shape in one parameter group.

    Every tensor begins with (layers, groups); ``optimizer.state[weight]`` holds slices of it.
    """

    def __init__(
        self, layers: Sequence[Layer], curvature: Curvature, queue: CallQueue, *, reduced: bool
    ) -> None:
        first, names = layers[0], [layer.name for layer in layers]
        geometry, self.has_bias = first.geometry, first.has_bias
        dim = geometry.in_features + first.has_bias
        rank = min(first.group.get("rank", dim), dim)
        self.layers = layers
        self.options = first.group
        self.structure = structure_of(self.options)  # that the state was made for
        self.shape = Shape(geometry.groups, dim, rank, geometry.out_features)
        self.dtype = first.statistic_dtype
        self.curvature = curvature
        self.window = Window(curvature, queue, self.has_bias, self.follow)
        sizes = (self.shape, len(layers), self.dtype)
        self.running = RunningStatistics(self.options, curvature, *sizes, reduced=reduced)
        self.factors = Factors(names, self.options, curvature, self.shape, self.dtype)
        self.failures = RefreshFailures(names, self.options)
        self._reduced = reduced
        self._is_plain = self.dtype == first.weight.dtype and all(each.is_plain for each in layers)
        self._attempted = [False] * len(layers)
        self._without_data = [0] * len(layers)  # windows that ended so
        self._window: int | None = None
        for index, layer in enumerate(layers):
            called = hasattr(layer, "pending") and layer.pending.was_called
            layer.pending = PendingStatistics(self.window, index, was_called=called)
        device = first.weight.device
        self.to(torch.device("cpu") if device.type == "meta" else device, self.dtype)

    # --- state -------------------------------------------------------------------------------

    def state(self, layer: Layer) -> Tensors:
        return self._views[layer.pending.index]

    def snapshot(self, layer: Layer) -> Tensors:
        """A layer's slices of the state, with what was not reduced yet, for :meth:`load`."""
        return {**self.state(layer), **self.running.own_of(layer.pending.index)}

    def load(self, layer: Layer, state: Mapping[str, Tensor]) -> None:
        """Take over a layer's state, as :meth:`state` or :meth:`snapshot` gave it."""
        index = layer.pending.index
        for name, view in self.state(layer).items():
            view.copy_(state[name])
        self.running.restore(index, state)
        self._attempted[index] = bool(self.factors.refreshed[index] != NEVER)
        self.factors.forget_derived()

    @property
    def device(self) -> torch.device:
        return self.running.rows.device

    def fits(self) -> bool:
        """Whether all that the state was made for is still so: device, dtype, bias and options."""
        device, dtype = self.device, self.dtype
        return self.structure == structure_of(self.options) and all(
            layer.weight.device == device
            and (layer.weight.dtype == dtype or layer.statistic_dtype == dtype)
            and layer.has_bias == self.has_bias
            for layer in self.layers
        )

    @property
    def keeps_state(self) -> bool:
        """Whether the state has the meaning that the options ask for."""
        return structure_of(self.options)[:3] == self.structure[:3]

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = self.window.dtype = dtype
        self.window.device = device
        self.window.generation += 1
        self.running.to(device, dtype)
        self.factors.to(device, dtype)
        # All that a resumed run needs, by the names used in ``optimizer.state``.
        tensors = {**self.running.tensors, **self.factors.tensors}
        self._views = [
            {name: tensor[index] for name, tensor in tensors.items()}
            for index in range(len(self.layers))
        ]

    def follow(self, device: torch.device, dtype: torch.dtype) -> None:
        """Follow a model that was moved or cast since the last step."""
        if self.device != device or self.dtype != dtype:
            self.window.queue.flush()
            self.to(device, dtype)
            self.open()

    # --- statistics --------------------------------------------------------------------------

    @property
    def takes_statistics(self) -> bool:
        return int(self.options["step"]) % int(self.options["cov_interval"]) == 0

    def begin_step(self) -> None:
        """Open or close the group for captures."""
        if self.takes_statistics:
            self.open()
        else:
            self.close()

    def open(self) -> None:
        """Start the statistics of a step from zero, with the window's probes."""
        window = -(-int(self.options["step"]) // int(self.options["inv_interval"]))
        if self.curvature.restarts(self.shape) and self._window not in (None, window):
            # An interval changed within a window: the new probes need a new average.
            self.running.clear()
        if self._window != window:
            self.window.generation += 1
        self._window = window
        count = int(self.options["step"]) // int(self.options["cov_interval"])
        start = start_of(self.factors.seed_of("samples", 0), count)
        self.window.probes, self.window.start = self.factors.probes(window), start
        self._restart(is_open=True)

    def close(self) -> None:
        """Release what only a step with statistics needs."""
        if self.window.is_open:
            self.window.probes = torch.empty(0)
            self._restart(is_open=False)

    def _restart(self, *, is_open: bool) -> None:
        self.window.is_open = is_open
        for layer in self.layers:
            layer.pending.begin_step()

    def adopt(self) -> None:
        """Take the calls behind gradients that no hook saw accumulated; drop those of none."""
        for layer in self.layers:
            if layer.weight.grad is None:
                layer.pending.discard()
            else:
                layer.pending.adopt(sharded=layer.is_sharded)

    def commit(self) -> None:
        """Add the step's statistics to the running ones; values that aren't finite are left out."""
        pending, none = [layer.pending for layer in self.layers], [0.0] * self.shape.groups
        # With one of two sides alone a layer has no data.
        sides = 1 + self.curvature.observes_outputs
        rows = [each.rows if len(each.sums) >= sides else none for each in pending]
        counts = [[*row, each.samples] for row, each in zip(rows, pending, strict=True)]
        sums: Tensors = {}
        for name, total in self.running.tensors.items():
            empty = torch.zeros_like(total[0])
            sums[name] = torch.stack([each.sums.get(name, empty) for each in pending])
        pinned = self.device.type == "cuda"
        on_host = torch.tensor(counts, dtype=self.dtype, device="cpu", pin_memory=pinned)
        on_device = on_host.to(self.device, non_blocking=True)
        sums[ROWS], samples = on_device[:, :-1], on_device[:, -1:]
        totals, usable = self.curvature.totals(sums, samples), sums[ROWS] > 0
        for total in totals.values():
            usable &= total.isfinite().flatten(2).all(-1) if total.ndim > 2 else total.isfinite()
        self.running.add(totals, usable)

    # --- factors -----------------------------------------------------------------------------

    @property
    def cost(self) -> float:
        """Work of one layer's factorisation, up to a constant."""
        return self.shape.groups * self.curvature.work(self.shape)

    @property
    def exchanged(self) -> int:
        """Numbers that one layer's factors and success flags take."""
        factors = sum(value.numel() for value in self.factors.current.values())
        return factors // len(self.layers) + self.shape.groups

    def due(self) -> list[bool]:
        """Which layers take new factors: all once a window, others at their first data."""
        whole = self.options["step"] % self.options["inv_interval"] == 0
        # With several ranks, only this one knows of its first data.
        alone = self.window.capturing and not self._reduced
        return [
            whole or (alone and layer.pending.has_calls and not attempted)
            for layer, attempted in zip(self.layers, self._attempted, strict=True)
        ]

    def without_data(self) -> list[Layer]:
        """Layers that have had gradients and no data for two windows, where a window ends."""
        if self.options["step"] % self.options["inv_interval"]:
            return []
        for index, layer in enumerate(self.layers):
            has_data = self._attempted[index] or layer.pending.has_calls
            self._without_data[index] += not has_data and layer.weight.grad is not None
        # The first step ends a window too.
        return [x for x, ends in zip(self.layers, self._without_data, strict=True) if ends == 3]

    def factorise(self, layers: slice = slice(None)) -> tuple[Tensors, Tensor]:
        """Compute factors from the statistics, and (layers, groups): which can be used."""
        means = {name: value[layers] for name, value in self.running.means().items()}
        return self.curvature.refresh(means, self.window.probes[layers])

    def refresh(self, due: Sequence[bool], computed: tuple[Tensors, Tensor] | None = None) -> None:
        """Take new or ``computed`` factors; a layer whose factorisation fails keeps its own."""
        wanted = self._mask(due) & self.running.has_data()
        new, usable = self.factorise() if computed is None else computed
        tried = [d and layer.pending.has_calls for d, layer in zip(due, self.layers, strict=True)]
        had_data = wanted if self._reduced else self._mask(tried)
        failed = self.factors.replace(new, usable, wanted, had_data, self.options["step"])
        self.window.generation += 1
        self._attempted = [a or t for a, t in zip(self._attempted, tried, strict=True)]
        if self.device.type != "cpu" or bool(failed.any()):
            self.failures.post(self.factors.failures * failed, self.running.means())
        if self.curvature.restarts(self.shape):
            carried = self.curvature.carried(self.factors.current, self.running.rows)
            self.running.restart(failed if carried else wanted)
            self.running.replace(wanted & ~failed, carried)
        if all(due):
            # The statistics fit the probes of the window that opens next.
            self._window = None

    def _mask(self, flags: Sequence[bool]) -> Tensor:
        """Put flags on the device with fills, which need no sync."""
        mask = torch.full((len(flags),), all(flags), device=self.device)
        for index in [] if all(flags) else [i for i, flag in enumerate(flags) if flag]:
            mask[index].fill_(True)
        return mask

    @property
    def description(self) -> str:
        """What all ranks must have in common, in one line."""
        names = [layer.name for layer in self.layers]
        fixed = ("step", "cov_interval", "inv_interval", "stat_decay", "damping", "damping_scale")
        settings = {name: self.options[name] for name in fixed}
        structural = dict(zip(STRUCTURAL, self.structure, strict=True))
        return f"{names} {self.shape} {self.dtype} {settings | structural}"

    # --- gradients ---------------------------------------------------------------------------

    def precondition(self, result: dict[Tensor, Tensor]) -> None:
        """Precondition the gradients: parameter to new gradient, where it has one."""
        for layer in self.layers if not self._is_plain else ():
            if layer.shard.is_empty and layer.weight.grad is not None:
                result[layer.weight] = local_gradient(layer.weight)
        for layers in self._batches():
            weights = [layer.weight for layer in layers]
            biases = [layer.bias for layer in layers if layer.bias is not None and self.has_bias]
            gradients = [p.grad for p in (*weights, *biases) if p.grad is not None]
            complete = len(gradients) == len(weights) + len(biases)
            # A model may be cast after the optimizer was built.
            if self._is_plain and complete and all(g.dtype == self.dtype for g in gradients):
                result.update(self._precondition_stacked(weights, biases, gradients, layers))
            else:
                self._precondition_each(layers, result)

    def _precondition_stacked(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        gradients: Sequence[Tensor],
        layers: Sequence[Layer],
    ) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(weights)
        shape = (count, self.shape.groups, self.shape.out)
        weight = _stack(gradients[:count]).reshape(*shape, -1)
        bias = _stack(gradients[count:]).reshape(shape) if biases else None
        weight, bias = self.curvature.precondition(weight, bias, self._action(layers))
        yield from zip(weights, weight.reshape(count, *weights[0].shape).unbind(), strict=True)
        if bias is not None:
            yield from zip(biases, bias.reshape(count, -1).unbind(), strict=True)

    def _precondition_each(self, layers: Sequence[Layer], result: dict[Tensor, Tensor]) -> None:
        """Precondition gradients that each layer lays out differently."""
        gradients = [layer.gradients(self.dtype, bias=self.has_bias) for layer in layers]
        weights, biases = zip(*gradients, strict=True)
        weight, bias = self.curvature.precondition(
            _stack(weights), _stack(biases) if self.has_bias else None, self._action(layers)
        )
        for index, layer in enumerate(layers):
            part = None if bias is None else bias[index]
            result.update(layer.write_back(weight[index], part))

    def _action(self, layers: Sequence[Layer]) -> Tensors:
        """The slice of the action that belongs to some layers, and to the groups on this rank."""
        action, shard = self.factors.action(), layers[0].shard
        if len(layers) < len(self.layers):
            rows = slice(layers[0].pending.index, layers[-1].pending.index + 1)
            action = {name: value[rows] for name, value in action.items()}
        if shard.groups < self.shape.groups:
            groups = slice(shard.first_group, shard.first_group + shard.groups)
            action = {name: value[:, groups] for name, value in action.items()}
        return action

    def _batches(self) -> Iterator[Sequence[Layer]]:
        """Runs of layers that have a gradient, as long as a batch of their matrices may be."""
        limit = _BATCH_ELEMENTS.get(self.device.type, _ELEMENTS)
        most = max(1, limit // max(1, local(self.layers[0].weight).numel()))
        for ready, layers in groupby(self.layers, _is_ready):
            run = list(layers) if ready else []
            for start in range(0, len(run), most):
                yield run[start : start + most]


def _is_ready(layer: Layer) -> bool:
    return layer.weight.grad is not None and not layer.shard.is_empty


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    """Stack the matrices of a batch, without a copy for one layer."""
    return torch.stack(list(matrices)) if len(matrices) > 1 else matrices[0].unsqueeze(0)
