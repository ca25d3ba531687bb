"""Statistics of a call, of a batch, and of all batches so far."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, Shape, Tensors, lift
from nysact.layers import LinearMap

ROWS = "rows"


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """A context without autocast, which costs nothing where autocast is off."""
    casting = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if casting else nullcontext()


class CallStatistics:
    """The statistics of one forward call: sampled inputs that wait, then sums over their rows."""

    def __init__(self, batch: "BatchStatistics", index: int, offset: int, samples: int) -> None:
        self.generation = batch.generation
        self.samples = samples
        self.sums: Tensors = {}
        self.rows: Sequence[float] = ()  # one entry a group
        self.output_rows = 0
        self._curvature = batch.curvature
        self._probes = batch.probes[index]  # (groups, dim, rank)
        self._offset = offset
        self._linear_map: LinearMap | None = None
        self._scale = 1.0  # how many samples each that was taken stands for

    def wait(self, linear_map: LinearMap, scale: float) -> None:
        """Keep the map that the sampled inputs induce until :meth:`measure`."""
        self._linear_map, self._scale = linear_map, scale

    @torch.no_grad()
    def measure(self) -> None:
        """Reduce the sampled inputs to sums over their rows."""
        if self._linear_map is not None:
            with without_autocast(self._probes.device.type):
                self.sums = self._curvature.measure(self._linear_map, self._probes, self._offset)
            self.rows = _scale(self.sums, self._linear_map.rows, self._scale)
            self._linear_map = None

    @torch.no_grad()
    def measure_outputs(self, rows: Tensor) -> None:
        """Reduce the gradient of the call's output, (groups, rows, out), in the same way."""
        self.sums |= self._curvature.measure_outputs(rows, self.samples, self._offset)
        self.output_rows = rows.shape[1]


class CallQueue:
    """Calls whose statistics are still to be measured.

    Measured one by one between the large operations of a forward, each finds neither its code nor
    its data in the processor's cache. Run back to back, they take a third of the time.
    """

    # Bytes of sampled inputs that may wait: little beside a model's activations, and they stay in
    # a processor's cache.
    LIMIT = 2**22

    def __init__(self) -> None:
        self.drop()

    def add(self, call: CallStatistics, size: int) -> None:
        """Queue a call; ``size`` bytes of copied inputs wait with it."""
        self._calls.append(call)
        self._bytes += size
        if self._bytes > self.LIMIT:
            self.flush()

    def flush(self) -> None:
        calls = self._calls
        self.drop()
        for call in calls:
            call.measure()

    def drop(self) -> None:
        self._calls: list[CallStatistics] = []
        self._bytes = 0


class BatchStatistics:
    """Sums over the rows of one step, of all layers of a group."""

    def __init__(
        self,
        curvature: Curvature,
        queue: CallQueue,
        follow: Callable[[torch.device, torch.dtype], None],
        *,
        bias: bool,
    ) -> None:
        self.curvature = curvature
        self.queue = queue
        self.follow = follow  # moves the group's state to a device and dtype
        self.bias = bias  # whether rows end in a constant 1
        self.capturing = False  # whether the next forward is captured
        # Sums of another generation were taken with other probes, or lie on another device.
        self.generation = 0
        # Tensors for traced calls can't be made in the trace without another graph: they are made
        # ahead for the first step, and after a step that was traced.
        self._expects_trace = True
        self.close()

    def open(self, running: "RunningStatistics", probes: Tensor, start: int) -> None:
        """Start a step from zero, with the window's probes, (layers, groups, dim, rank)."""
        self.is_open, self.probes = True, probes
        self.start = start  # that says which samples are taken
        self.sums: Tensors = _zeros_like(running.tensors)
        self._output_rows, self._samples = self.rows.clone(), self.rows[:, :1].clone()
        self._traced: Tensors = {}
        if self._expects_trace:
            self._open_traced()
        self._expects_trace = False

    def close(self) -> None:
        """Release what only a step with statistics needs."""
        self.is_open = False
        self.sums, self._traced = {}, {}
        self.probes = self._output_rows = self._samples = torch.empty(0)

    @property
    def rows(self) -> Tensor:  # (layers, groups)
        return self.sums[ROWS]

    def add(self, index: int, call: CallStatistics) -> None:
        """Add the statistics of one call of the layer at ``index``."""
        for name, value in call.sums.items():
            self.sums[name][index].add_(value)
        if len(set(call.rows)) == 1:
            self.rows[index].add_(call.rows[0])
        else:
            for group, count in enumerate(call.rows):
                self.rows[index, group].add_(count)
        if self.curvature.observes_outputs:
            self._output_rows[index].add_(call.output_rows)
            self._samples[index].add_(call.samples)

    def clear(self, index: int) -> None:
        for value in (*self.sums.values(), self._output_rows, self._samples):
            value[index].zero_()

    def total(self) -> tuple[Tensors, Tensor]:
        """The step's totals, and (layers, groups): where there are data, all of them finite."""
        totals = self.curvature.totals(self.sums, self._samples)
        usable = self.rows > 0
        if self.curvature.observes_outputs:
            usable &= self._output_rows > 0
        for total in totals.values():
            usable &= total.isfinite().flatten(2).all(-1) if total.ndim > 2 else total.isfinite()
        return totals, usable

    # --- calls inside a compiled graph, which can't hold Python objects ------------------------

    def _open_traced(self) -> None:
        self._traced = _zeros_like(self.sums)
        # A number would be compiled into the graph.
        self._traced_start = torch.full((), self.start, device=self.rows.device)

    def start_traced(self) -> Tensor:
        """Prepare for a call of a compiled graph; return the start as a tensor."""
        self._expects_trace = True
        if not self._traced:
            self._open_traced()
        return self._traced_start

    def add_traced(self, index: int, linear_map: LinearMap, scale: float) -> None:
        """Add one call of a compiled graph to sums that await its backward pass."""
        sums = self.curvature.measure(linear_map, self.probes[index], 0)
        for group, count in enumerate(_scale(sums, linear_map.rows, scale)):
            self._traced[ROWS][index, group].add_(count)
        for name, value in sums.items():
            self._traced[name][index].add_(value)

    def fold_traced(self, index: int) -> None:
        """Add the traced sums of a layer to those of the step, and restart them from zero."""
        for name, value in self._traced.items():
            self.sums[name][index].add_(value[index])
            value[index].zero_()


class RunningStatistics:
    """Sums over the rows of all steps, and the number of the rows, which decay alike.

    They decay with or without data, so they are linear in the data: their ratio is a mean whose
    weights fall with age, and the sums of several ranks add up.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        curvature: Curvature,
        shape: Shape,
        layers: int,
        dtype: torch.dtype,
        *,
        reduced: bool,
    ) -> None:
        self._options = options
        self._curvature = curvature
        sizes: dict[str, tuple[int, ...]] = {**curvature.statistics(shape), ROWS: ()}
        # Sums of all ranks' data up to the last reduction, each (layers, groups, ...).
        self.tensors = {
            name: torch.zeros(layers, shape.groups, *size, dtype=dtype, device="cpu")
            for name, size in sizes.items()
        }
        # The same of this rank's data since then; empty with one process.
        self.own = _zeros_like(self.tensors) if reduced else {}
        self.unreduced = False  # whether there are such data
        self._decay_since = 1.0
        self._present: Tensor | None = None

    @property
    def rows(self) -> Tensor:  # (layers, groups)
        return self.tensors[ROWS]

    def snapshot(self, index: int) -> Tensors:
        """A layer's sums, decayed as the next reduction would decay them now."""
        decayed = {name: total[index] * self._decay_since for name, total in self.tensors.items()}
        return decayed | {f"own {name}": total[index] for name, total in self.own.items()}

    def restore(self, index: int, saved: Mapping[str, Tensor]) -> None:
        """Load this rank's unreduced sums of a layer, where :meth:`snapshot` gave some."""
        for name, total in self.own.items():
            if f"own {name}" in saved:
                total[index].copy_(saved[f"own {name}"])
                self.unreduced = True

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        self.tensors = {name: total.to(device, dtype) for name, total in self.tensors.items()}
        self.own = {name: total.to(device, dtype) for name, total in self.own.items()}

    def add(self, totals: Tensors, usable: Tensor) -> None:
        """Add one step's totals where ``usable``, (layers, groups)."""
        decay, running = self._options["stat_decay"], self.own or self.tensors
        for name, total in totals.items():
            running[name].lerp_(torch.where(lift(usable, total), total, 0), 1 - decay)
        if self.own:
            self._decay_since, self.unreduced = self._decay_since * decay, True

    def clear(self) -> None:
        for total in (*self.tensors.values(), *self.own.values()):
            total.zero_()

    def restart(self, layers: Tensor) -> None:
        """Restart the layers of a mask from zero; nothing is left to reduce."""
        for total in self.tensors.values():
            total.masked_fill_(lift(layers, total), 0)

    def replace(self, layers: Tensor, sums: Tensors) -> None:
        """Replace some sums of the layers of a mask."""
        for name, value in sums.items():
            total = self.tensors[name]
            total.copy_(torch.where(lift(layers, total), value, total))

    def means(self) -> Tensors:
        """The sums divided by their counts."""
        sums = {name: total for name, total in self.tensors.items() if name != ROWS}
        return self._curvature.means(sums, self.rows)

    def has_data(self) -> Tensor:
        """Which layers have data that has not decayed so far that its ratio loses its digits."""
        limits = torch.finfo(self.rows.dtype)
        has_data = (self.rows > limits.tiny / limits.eps).all(-1)
        # A step that no rank took part in brings no factors.
        return has_data if self._present is None else has_data & (self._present > 0)

    # --- several processes -------------------------------------------------------------------

    def decay(self) -> None:
        """Decay by a step with statistics that this rank takes no part in."""
        for total in self.own.values():
            total.mul_(self._options["stat_decay"])
        self._decay_since *= self._options["stat_decay"]

    def contribution(self, rank: int, ranks: int, *, present: bool) -> list[Tensor]:
        """What this rank adds to the reduction; the sums over ranks replace these tensors."""
        self.own = self._curvature.portion(self.own, rank, ranks)
        self._present = self.rows.new_full((1,), float(present))
        return [*self.own.values(), self._present]

    def accept_reduction(self) -> None:
        """Add the sums over ranks to the common ones, and restart this rank's."""
        for name, total in self.tensors.items():
            total.mul_(self._decay_since).add_(self.own[name])
            self.own[name].zero_()
        self._decay_since, self.unreduced = 1.0, False


def _scale(sums: Tensors, rows: Sequence[float], scale: float) -> Sequence[float]:
    """Scale the sums of sampled rows, in place, and their number to those of all rows."""
    if scale == 1:
        return rows
    for value in sums.values():
        value.mul_(scale)
    return [count * scale for count in rows]


def _zeros_like(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in tensors.items()}
