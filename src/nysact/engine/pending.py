"""Which calls of a layer its gradient came through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, Tensors
from nysact.engine.statistics import CallQueue, CallStatistics
from nysact.torch_private import backward_id, backward_retains_graph

# A step may well reset gradients and perturb weights a few times, and unroll a cell often.
_SIGNS_OF_IDLENESS, _CALLS_A_SIGN = 100, 1000


@dataclass(eq=False)
class Window:
    """What the calls of a group of layers are measured with, until the next refresh."""

    curvature: Curvature
    queue: CallQueue
    bias: bool  # whether rows end in a constant 1
    follow: Callable[[torch.device, torch.dtype], None]  # moves the group to a device and dtype
    device: torch.device = field(init=False)
    dtype: torch.dtype = field(init=False)
    probes: Tensor = field(init=False)  # (layers, groups, dim, rank)
    start: int = 0  # says which samples are taken
    is_open: bool = False  # whether this step takes statistics
    capturing: bool = False  # whether the next forward is captured
    # Sums of another generation were taken with other probes, or lie on another device.
    generation: int = 0


class PendingStatistics:
    """The calls of one layer between their forward and the step.

    A call counts if and only if the gradient in ``weight.grad`` at the step came through it. The
    methods are the transitions of a call's life::

        captured   a forward ran; the call's autograd graph alone keeps its statistics alive
        arrived    a backward pass reached the call's output
        set aside  that pass added to ``weight.grad``: the layer's sums hold the call
        committed  a step used the gradient: the running statistics hold the call
        discarded  the gradient was reset, or the graph was freed before a backward pass

    A graph that was retained keeps its calls, so a later backward pass can set them aside again.
    """

    def __init__(self, window: Window, index: int, *, was_called: bool = False) -> None:
        self.window = window
        self.index = index  # of this layer in its group
        self.was_called = was_called  # whether a call was ever captured
        self.handles: list[Any] = []  # of the hooks on the weight
        self.begin_step()

    def begin_step(self) -> None:
        """Forget all calls; those that a retained graph holds may arrive again."""
        self.unhook()
        self._calls = self._signs = 0
        self._version: int | None = None
        self.gradient_version: int | None = None  # after the last accumulation
        self.has_gradient = False  # whether a backward pass reached the weight
        self._captured = 0  # samples of the calls since the last step
        self._arrived: dict[int, list[CallStatistics]] = {}
        self._received: set[int] = set()
        self._unhooked: list[CallStatistics] = []
        self._clear()

    def unhook(self) -> None:
        """Remove the hooks on the weight."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def is_idle(self, version: int) -> bool:
        """Whether training goes on without steps of this optimizer, by what a new call shows."""
        # Nothing tells for sure: another optimizer resets gradients or changes the weight, which is
        # at this version; evaluation brings calls without end.
        self._calls += 1
        if version != self._version:
            self._version, self._signs = version, self._signs + 1
        idle = self._signs + self._calls // _CALLS_A_SIGN > _SIGNS_OF_IDLENESS
        if idle:
            self._clear()
        return idle

    def _clear(self) -> None:
        # Of the calls that were set aside.
        self.sums: Tensors = {}
        self.rows: Sequence[float] = ()  # one entry a group
        self.samples = 0

    @property
    def has_calls(self) -> bool:
        """Whether calls with rows were set aside."""
        return bool(self.rows)

    def capture(self, samples: int) -> CallStatistics:
        """Begin the statistics of a call."""
        window, offset = self.window, self._captured
        self._captured += samples
        probes = window.probes[self.index]
        return CallStatistics(window.curvature, probes, offset, samples, window.generation)

    def capture_unhooked(self, call: CallStatistics) -> None:
        """Take a call whose output no hook can watch; the next backward pass sets it aside."""
        self._unhooked.append(call)

    def arrive(self, call: CallStatistics) -> bool:
        """A backward pass reached the call's output: whether its statistics are still of use."""
        if not self.window.capturing or call.generation != self.window.generation:
            return False
        # What waits was copied on the stream of the forward, which this hook runs on too.
        self.window.queue.flush()
        call.measure()  # The queue dropped it if a step came between.
        calls = self._arrived.setdefault(backward_id(), [])
        if not any(each is call for each in calls):
            calls.append(call)
        return True

    def receive(self, *, reset: bool) -> None:
        """The weight's gradient of this backward pass is complete, and about to be accumulated."""
        self._received.add(backward_id())
        if reset and self.has_calls:
            # The model's own zero_grad can't be observed; its effect shows here.
            self._drop_set_aside()

    def set_aside(self, *, every_pass: bool = False) -> None:
        """The gradient was accumulated: add up the calls that it came through."""
        passes = list(self._arrived) if every_pass else [backward_id()]
        calls = [call for each in passes for call in self._arrived.pop(each, [])]
        self._add(calls + self._unhooked)
        self._unhooked.clear()
        if not backward_retains_graph():
            for call in calls:
                call.sums = {}

    def _add(self, calls: list[CallStatistics]) -> None:
        self.window.queue.flush()
        for call in calls:
            for name, value in call.sums.items():
                if name in self.sums:
                    self.sums[name] = self.sums[name] + value
                else:
                    self.sums[name] = value
            if call.rows:
                before = self.rows or [0.0] * len(call.rows)
                self.rows = [a + b for a, b in zip(before, call.rows, strict=True)]
            self.samples += call.samples

    def discard(self) -> None:
        """The gradient was reset: drop the calls that it came through, and no others."""
        self._arrived.clear()
        self._received.clear()
        self._drop_set_aside()

    def _drop_set_aside(self) -> None:
        self._signs += 1
        self._captured -= self.samples
        self.has_gradient = False
        self._clear()

    def adopt(self, *, sharded: bool) -> None:
        """Set aside the calls of gradients that a sharded weight or the user's code accumulated."""
        if sharded and self.has_gradient:
            self.set_aside(every_pass=True)
        elif not self.has_gradient:
            # autograd.grad gave these gradients, and the user assigned them.
            self._add([call for each in self._received for call in self._arrived.pop(each, [])])
