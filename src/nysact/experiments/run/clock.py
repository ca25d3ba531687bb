"""The time of training steps, without what goes on between them."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from nysact.experiments.timing import WINDOW

# The key of the peak of memory in what :func:`summary` returns; reports read it.
PEAK_MEMORY = "peak_memory"


class StepClock:
    """Measures steps: by the host's clock on a CPU, by the device's own events on an accelerator.

    Nothing waits for the device until the times are asked for.

    Args:
        device: Where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Steps done when this process and earlier ones started.
        self.starts = [0]
        self._seconds: list[float] = []
        self._events: list[tuple[torch.Event, torch.Event]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the step in the body.

        Yields:
            Nothing.
        """
        if self.device.type == "cpu":
            start = time.perf_counter()
            yield
            self._seconds.append(time.perf_counter() - start)
        else:
            events = [torch.Event(self.device, enable_timing=True) for _ in range(2)]
            events[0].record()
            yield
            events[1].record()
            self._events.append((events[0], events[1]))

    def seconds(self) -> list[float]:
        """Give the time of each step so far."""
        if self._events:
            torch.accelerator.synchronize(self.device)
            self._seconds += [start.elapsed_time(end) / 1000 for start, end in self._events]
            self._events = []
        return self._seconds

    def restore(self, seconds: Sequence[float], starts: Sequence[int] = (0,)) -> None:
        """Take over the times of earlier steps, and note that this process starts after them.

        Args:
            seconds: The times.
            starts: Steps done when the earlier processes started.
        """
        self._seconds = list(seconds)
        self.starts = [*starts, len(seconds)]


def settled(seconds: Sequence[float], starts: Iterable[int]) -> list[float]:
    """Leave out the steps after each start of a process, of which the first ones warm up.

    A whole window each time, so that the costly steps that recur in it keep their share.

    Args:
        seconds: The time of each step.
        starts: Steps done when a process started.

    Returns:
        The others, or all if fewer than a window are left.
    """
    left_out = {step for start in starts for step in range(start, start + WINDOW)}
    rest = [time for step, time in enumerate(seconds) if step not in left_out]
    return rest if len(rest) >= WINDOW else list(seconds)


def summary(clock: StepClock) -> dict[str, Any]:
    """Sum up the time and the memory of a run.

    Args:
        clock: Has measured its steps.

    Returns:
        Total seconds of all steps; mean and median of those that :func:`settled` leaves, and how
        many they are; on a GPU the most bytes that tensors took (``"peak_memory"``) and that torch
        held (``"peak_reserved_memory"``).
    """
    device, seconds = clock.device, clock.seconds()
    memory = {}
    if device.type == "cuda":
        memory = {
            PEAK_MEMORY: torch.cuda.max_memory_allocated(device),
            "peak_reserved_memory": torch.cuda.max_memory_reserved(device),
        }
    timed = settled(seconds, clock.starts)
    return {
        "training_seconds": sum(seconds),
        "timed_steps": len(timed),
        "mean_step_seconds": sum(timed) / max(1, len(timed)),
        "median_step_seconds": median(timed or [0.0]),
        **memory,
    }
