"""The clock: marks in time on the host or on the device, and the time of each training step."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from nysact.experiments.devices import synchronize
from nysact.experiments.errors import ExperimentError

CLOCKS = ("auto", "events", "wall", "cpu")
# Steps in one comparison: NysAct's costly steps recur every 50, so that 50 in a row hold exactly
# one of each kind, wherever they begin.
WINDOW = 50


class Clock:
    """Takes marks in time without disturbing the device.

    ``"events"`` puts marks into the device's queue, ``"wall"`` and ``"cpu"`` (processor time of
    all threads) read the host's clock once the device is idle; ``"auto"`` takes events on an
    accelerator and the wall clock on a CPU.
    """

    def __init__(self, device: torch.device, kind: str = "auto") -> None:
        if kind not in CLOCKS:
            raise ExperimentError(f"--clock {kind}: expected one of {', '.join(CLOCKS)}")
        on_host = device.type == "cpu"
        if kind == "events" and on_host:
            raise ExperimentError(f"--clock events: {device} has no events; choose wall")
        if kind == "cpu" and not on_host:
            raise ExperimentError(f"--clock cpu: it cannot time {device}; choose events or wall")
        self.device = device
        self.by_events = kind == "events" or (kind == "auto" and not on_host)
        self._now = time.process_time if kind == "cpu" else time.perf_counter

    def mark(self) -> Any:
        """Take a mark."""
        if self.by_events:
            event = torch.Event(self.device, enable_timing=True)
            event.record()
            return event
        synchronize(self.device)
        return self._now()

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two marks; waits for the device."""
        if not self.by_events:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


class StepClock:
    """The time of each step of a training; nothing waits for the device until it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Steps done when this process and earlier ones started.
        self.starts = [0]
        self._clock = Clock(device)
        self._seconds: list[float] = []
        self._marks: list[tuple[Any, Any]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the step in the body."""
        start = self._clock.mark()
        yield
        self._marks.append((start, self._clock.mark()))

    def seconds(self) -> list[float]:
        """The time of each step so far."""
        self._seconds += [self._clock.between(*marks) for marks in self._marks]
        self._marks.clear()
        return self._seconds

    def restore(self, seconds: Sequence[float], starts: Sequence[int] = (0,)) -> None:
        """Take over the times of an earlier process's steps; this process starts after them."""
        self._seconds = list(seconds)
        self.starts = [*starts, len(seconds)]

    def summary(self) -> dict[str, float]:
        """Total seconds, and mean and median of the steps that are not warm-up."""
        seconds = self.seconds()
        timed = without_warmup(seconds, self.starts)
        return {
            "training_seconds": sum(seconds),
            "timed_steps": len(timed),
            "mean_step_seconds": sum(timed) / max(1, len(timed)),
            "median_step_seconds": median(timed or [0.0]),
        }


def without_warmup(seconds: Sequence[float], starts: Iterable[int]) -> list[float]:
    """Leave out a window of steps after each start of a process, unless too few would be left."""
    left_out = {step for start in starts for step in range(start, start + WINDOW)}
    rest = [time for step, time in enumerate(seconds) if step not in left_out]
    return rest if len(rest) >= WINDOW else list(seconds)
