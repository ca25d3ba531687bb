"""Statistics of a call, of a batch, and of all batches so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    def __init__(self, batch: BatchStatistics, index: int, offset: int, samples: int) -> None:
        self.generation = batch.generation
        self.samples, self.sampled = samples, 0  # of the call, and those chosen among them
        self.sums: Tensors = {}
        self.output_sums: Tensors = {}
        self.rows: list[int] = []  # one entry a group
        self.output_rows = 0
        self._curvature = batch.curvature
        self._probes = batch.probes[index]  # (groups, dim, rank)
        self._offset = offset
        self._linear_map: LinearMap | None = None

    def wait(self, linear_map: LinearMap) -> None:
        """Keep the map that the sampled inputs induce until :meth:`measure`."""
        self._linear_map, self.sampled = linear_map, linear_map.samples

    @torch.no_grad()
    def measure(self) -> None:
        """Reduce the sampled inputs to sums over their rows."""
        if self._linear_map is not None:
            with without_autocast(self._probes.device.type):
                self.sums = self._curvature.measure(self._linear_map, self._probes, self._offset)
            self.rows = list(self._linear_map.rows)
            self._linear_map = None

    @torch.no_grad()
    def measure_outputs(self, rows: Tensor) -> None:
        """Reduce the gradient of the call's output, (groups, rows, out), in the same way."""
        self.output_sums = self._curvature.measure_outputs(rows, self.samples, self._offset)
        self.output_rows = rows.shape[1]

    def release(self) -> None:
        """Free the sums once no backward pass can need them again."""
        self.sums, self.output_sums = {}, {}


class CallQueue:
    """Calls whose statistics are still to be measured.

    Measured one by one between the large operations of a forward, each finds neither its code nor
    its data in the processor's cache. Run back to back, they take a third of the time.
    """

    # Bytes of sampled inputs that may wait: little beside a model's activations, and they stay in
    # a processor's cache.
    LIMIT = 2**22

    def __init__(self) -> None:
        self._calls: list[CallStatistics] = []
        self._bytes = 0

    def add(self, call: CallStatistics, size: int) -> None:
        """Queue a call; ``size`` bytes of copied inputs wait with it."""
        self._calls.append(call)
        self._bytes += size
        if self._bytes > self.LIMIT:
            self.flush()

    def flush(self) -> None:
        """Measure all calls."""
        calls, self._calls, self._bytes = self._calls, [], 0
        for call in calls:
            call.measure()

    def drop(self) -> None:
        """Forget all calls."""
        self._calls, self._bytes = [], 0


class BatchStatistics:
    """Sums over the rows of one step, of all layers of a group.

    Attributes:
        capturing: Whether the next forward is captured.
        generation: Changes when sums taken before can't be added to those taken after.
        follow: Moves the group's state to a device and dtype, where it is elsewhere.
        bias: Whether rows end in a constant 1.
        probes: What inputs are multiplied with, (layers, groups, dim, rank).
        sums: Name to sum, each beginning with (layers, groups).
    """

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
        self.follow = follow
        self.bias = bias
        self.capturing = False
        # Tensors for traced calls can't be made in the trace without another graph: they are made
        # ahead for the first step, and after a step that was traced.
        self._expects_trace = True
        # Sums of another generation were taken with other probes, or lie on another device.
        self.generation = 0
        self.sums: Tensors = {}
        self._traced: Tensors = {}
        self.close()

    def open(self, running: RunningStatistics, probes: Tensor) -> None:
        """Start a step from zero, with the window's probes."""
        self.probes = probes
        self.sums = {name: torch.zeros_like(total) for name, total in running.sums.items()}
        self._rows = torch.zeros_like(running.rows)  # (layers, groups)
        self._output_rows, self._samples = self._rows.clone(), self._rows[:, :1].clone()
        self._traced = self._zeros() if self._expects_trace else {}
        self.is_open, self._expects_trace = True, False

    def _zeros(self) -> Tensors:
        rows = torch.zeros_like(self._rows)
        return {**{name: torch.zeros_like(v) for name, v in self.sums.items()}, ROWS: rows}

    def close(self) -> None:
        """Release what only a step with statistics needs."""
        self.is_open = False
        self.sums, self._traced = {}, {}
        self.probes = self._rows = self._output_rows = self._samples = torch.empty(0)

    @property
    def device(self) -> torch.device:
        """Device of the sums."""
        return self._rows.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the sums."""
        return self._rows.dtype

    def add(self, index: int, call: CallStatistics) -> None:
        """Add the statistics of one call of the layer at ``index``."""
        for name, value in {**call.sums, **call.output_sums}.items():
            self.sums[name][index].add_(value)
        if len(set(call.rows)) == 1:
            self._rows[index].add_(call.rows[0])
        else:
            for group, count in enumerate(call.rows):
                self._rows[index, group].add_(count)
        if self.curvature.observes_outputs:
            self._output_rows[index].add_(call.output_rows)
            self._samples[index].add_(call.samples)

    def clear(self, index: int) -> None:
        """Drop the statistics of one layer."""
        for value in (*self.sums.values(), self._rows, self._output_rows, self._samples):
            value[index].zero_()

    def total(self) -> tuple[Tensors, Tensor]:
        """The step's totals, and (layers, groups): where there are data, all of them finite."""
        totals = self.curvature.totals(self.sums, self._samples)
        usable = self._rows > 0
        if self.curvature.observes_outputs:
            usable &= self._output_rows > 0
        for total in totals.values():
            usable &= total.isfinite().flatten(2).all(-1) if total.ndim > 2 else total.isfinite()
        return {**totals, ROWS: self._rows}, usable

    # --- calls inside a compiled graph, which can't hold Python objects ------------------------

    def add_traced(self, index: int, linear_map: LinearMap) -> None:
        """Add one call of a compiled graph to sums that await its backward pass."""
        self._expects_trace = True
        if not self._traced:
            self._traced = self._zeros()
        for name, value in self.curvature.measure(linear_map, self.probes[index], 0).items():
            self._traced[name][index].add_(value)
        for group, count in enumerate(linear_map.rows):
            self._traced[ROWS][index, group].add_(count)

    def fold_traced(self, index: int, *, keep: bool) -> None:
        """Add the traced sums of a layer to those of the step, or drop them; start from zero."""
        for name, value in self._traced.items():
            if keep:
                (self._rows if name == ROWS else self.sums[name])[index].add_(value[index])
            value[index].zero_()


class RunningStatistics:
    """Sums over the rows of all steps, and the number of the rows, which decay alike.

    They decay with or without data, so they are linear in the data: their ratio is a mean whose
    weights fall with age, and the sums of several ranks add up.

    Attributes:
        tensors: Name to sum of all ranks' data up to the last reduction; row counts as ``"rows"``.
        own: The same of this rank's data since then; empty with one process.
        unreduced: Whether ``own`` has data.
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
        self.tensors = {
            name: torch.zeros(layers, shape.groups, *size, dtype=dtype)
            for name, size in sizes.items()
        }
        self.own = {n: torch.zeros_like(t) for n, t in self.tensors.items()} if reduced else {}
        self.unreduced = False
        self._decay_since = 1.0
        self._present: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """Number of rows, (layers, groups)."""
        return self.tensors[ROWS]

    @property
    def sums(self) -> Tensors:
        """The sums over them."""
        return {name: total for name, total in self.tensors.items() if name != ROWS}

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
        """Move and cast the sums."""
        self.tensors = {name: total.to(device, dtype) for name, total in self.tensors.items()}
        self.own = {name: total.to(device, dtype) for name, total in self.own.items()}

    def add(self, totals: Tensors, usable: Tensor) -> None:
        """Add one step's totals where ``usable``, (layers, groups)."""
        decay = self._options["stat_decay"]
        running = self.own or self.tensors
        for name, total in totals.items():
            running[name].lerp_(torch.where(lift(usable, total), total, 0), 1 - decay)
        if self.own:
            self._decay_since, self.unreduced = self._decay_since * decay, True

    def clear(self) -> None:
        """Restart from zero."""
        for total in (*self.tensors.values(), *self.own.values()):
            total.zero_()

    def restart(self, layers: Tensor, carried: Tensors) -> None:
        """Restart the layers of a mask from zero or carried sums; nothing is left to reduce."""
        for name, total in self.tensors.items():
            if name in carried:
                total.copy_(torch.where(lift(layers, total), carried[name], total))
            elif not carried:
                total.masked_fill_(lift(layers, total), 0)

    def means(self) -> Tensors:
        """The sums divided by their counts."""
        return self._curvature.means(self.sums, self.rows)

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
