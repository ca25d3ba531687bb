"""The time of training steps, without what goes on between them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

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

    def restore(self, seconds: Sequence[float]) -> None:
        """Take over the times of earlier steps."""
        self._seconds = list(seconds)


def summary(seconds: Sequence[float], device: torch.device) -> dict[str, Any]:
    """Sum up the time and the memory of a run.

    Args:
        seconds: The time of each step.
        device: Where they ran.

    Returns:
        Total, mean and median seconds; on a GPU the most bytes that tensors took
        (``"peak_memory"``) and that torch held (``"peak_reserved_memory"``).
    """
    memory = {}
    if device.type == "cuda":
        memory = {
            PEAK_MEMORY: torch.cuda.max_memory_allocated(device),
            "peak_reserved_memory": torch.cuda.max_memory_reserved(device),
        }
    total = sum(seconds)
    return {
        "training_seconds": total,
        "mean_step_seconds": total / max(1, len(seconds)),
        "median_step_seconds": median(seconds or [0.0]),
        **memory,
    }
