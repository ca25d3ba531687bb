"""Clocks that time steps without disturbing them."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from nysact.experiments.errors import ExperimentError
from nysact.experiments.timing import synchronize

CLOCKS = ("auto", "events", "wall", "cpu")


class Clock(ABC):
    """Takes marks in time, whose distances are known once the device has done its work.

    Args:
        device: The device whose work is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def mark(self) -> object:
        """Take a mark."""

    @abstractmethod
    def between(self, start: object, end: object) -> float:
        """Give the seconds between two marks; waits for the device."""


class HostClock(Clock):
    """A clock of the host, read when the device has done its work.

    Args:
        device: The device.
        now: Gives the time in seconds.
    """

    def __init__(self, device: torch.device, now: Callable[[], float]) -> None:
        super().__init__(device)
        self._now = now

    def mark(self) -> object:
        """Take a mark once the device is idle."""
        synchronize(self.device)
        return self._now()

    def between(self, start: object, end: object) -> float:
        """Give the seconds between two marks."""
        assert isinstance(start, float)
        assert isinstance(end, float)
        return end - start


class EventClock(Clock):
    """Events of a CUDA device, in the stream of the work itself: nothing waits for a mark."""

    def mark(self) -> object:
        """Put a mark into the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: object, end: object) -> float:
        """Give the seconds between two marks."""
        assert isinstance(start, torch.cuda.Event)
        assert isinstance(end, torch.cuda.Event)
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1000


def make_clock(name: str, device: torch.device) -> Clock:
    """Make a clock.

    Args:
        name: ``"events"`` of the device, ``"wall"``, ``"cpu"`` for this process's processor time
            in all threads, or ``"auto"``: events on CUDA, the wall clock elsewhere.
        device: The device whose work is timed.

    Returns:
        The clock.

    Raises:
        ExperimentError: If there is no such clock for the device.
    """
    if name not in CLOCKS:
        raise ExperimentError(f"--clock {name}: expected one of {', '.join(CLOCKS)}")
    if name == "events" and device.type != "cuda":
        raise ExperimentError(f"--clock events: {device} has none; choose wall")
    if name == "cpu" and device.type != "cpu":
        raise ExperimentError(f"--clock cpu: it sees nothing of {device}; choose events or wall")
    if name == "events" or (name == "auto" and device.type == "cuda"):
        return EventClock(device)
    return HostClock(device, time.process_time if name == "cpu" else time.perf_counter)
