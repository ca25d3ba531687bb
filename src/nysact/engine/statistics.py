"""Statistics of one call, and of all steps so far."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, Shape, Tensors, lift
from nysact.layers import LinearMap
from nysact.torch_private import foreach_mul

ROWS = "rows"


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """A context without autocast, which costs nothing where autocast is off."""
    casting = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if casting else nullcontext()


class CallStatistics:
    """The statistics of one forward call: sampled inputs that wait, then sums over their rows."""

    def __init__(
        self, curvature: Curvature, probes: Tensor, offset: int, samples: int, generation: int
    ) -> None:
        self.samples, self.generation = samples, generation
        self.sums: Tensors = {}
        self.rows: Sequence[float] = ()  # one entry a group
        self._curvature = curvature
        self._probes = probes  # (groups, dim, rank)
        self._offset = offset  # samples of earlier calls of the step
        self._linear_map: LinearMap | None = None
        self._scale = 1.0  # how many samples each that was taken stands for

    def wait(self, linear_map: LinearMap, scale: float) -> None:
        """Keep the map that the sampled inputs induce until :meth:`measure`."""
        self._linear_map, self._scale = linear_map, scale

    def measure(self) -> None:
        """Reduce the sampled inputs to sums over their rows, scaled to those of all rows."""
        if self._linear_map is None:
            return
        with torch.no_grad(), without_autocast(self._probes.device.type):
            self.sums = self._curvature.measure(self._linear_map, self._probes, self._offset)
        if self._scale != 1:
            foreach_mul(list(self.sums.values()), self._scale)
        self.rows = [count * self._scale for count in self._linear_map.rows]
        self._linear_map = None

    @torch.no_grad()
    def measure_outputs(self, rows: Tensor) -> None:
        """Reduce the gradient of the call's output, (groups, rows, out), in the same way."""
        self.sums |= self._curvature.measure_outputs(rows, self.samples, self._offset)


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
        if self._calls:
            calls = self._calls
            self.drop()
            for call in calls:
                call.measure()

    def drop(self) -> None:
        self._calls: list[CallStatistics] = []
        self._bytes = 0


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
        self._present: Tensor | None = None

    @property
    def rows(self) -> Tensor:  # (layers, groups)
        return self.tensors[ROWS]

    def own_of(self, index: int) -> Tensors:
        """This rank's unreduced sums of a layer, for :meth:`restore`."""
        return {f"own {name}": total[index] for name, total in self.own.items()}

    def restore(self, index: int, saved: Mapping[str, Tensor]) -> None:
        for name, value in self.own_of(index).items():
            if name in saved:
                value.copy_(saved[name])
                self.unreduced = True

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        self.tensors, self.own = (
            {name: total.to(device, dtype) for name, total in sums.items()}
            for sums in (self.tensors, self.own)
        )

    def add(self, totals: Tensors, usable: Tensor) -> None:
        """Decay by a step, and add its totals where ``usable``, (layers, groups)."""
        decay, running = self._options["stat_decay"], self.own or self.tensors
        for name, total in totals.items():
            running[name].lerp_(torch.where(lift(usable, total), total, 0), 1 - decay)
        if self.own:
            self._decay(self.tensors)
            self.unreduced = True

    def decay(self) -> None:
        """Decay by a step with statistics that this rank takes no part in."""
        self._decay(self.tensors)
        self._decay(self.own)

    def _decay(self, sums: Tensors) -> None:
        for total in sums.values():
            total.mul_(self._options["stat_decay"])

    def restart(self, layers: Tensor) -> None:
        """Restart the layers of a mask from zero."""
        self.replace(layers, {name: total.new_zeros(()) for name, total in self.tensors.items()})

    def replace(self, layers: Tensor, sums: Tensors) -> None:
        """Replace some sums of the layers of a mask."""
        for name, value in sums.items():
            total = self.tensors[name]
            total.copy_(torch.where(lift(layers, total), value, total))

    def clear(self) -> None:
        for total in (*self.tensors.values(), *self.own.values()):
            total.zero_()

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

    def contribution(self, rank: int, ranks: int, *, present: bool) -> list[Tensor]:
        """What this rank adds to the reduction; the sums over ranks replace these tensors."""
        self.own = self._curvature.portion(self.own, rank, ranks)
        self._present = self.rows.new_full((1,), float(present))
        return [*self.own.values(), self._present]

    def accept_reduction(self) -> None:
        """Add the sums over ranks to the common ones, and restart this rank's."""
        for name, total in self.tensors.items():
            total.add_(self.own[name])
            self.own[name].zero_()
        self.unreduced = False


def _zeros_like(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in tensors.items()}
