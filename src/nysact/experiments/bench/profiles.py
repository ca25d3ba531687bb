"""What the profiler recorded: labelled spans and their own times, allocations and their peaks."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


class Span(NamedTuple):
    """A labelled stretch of time, in nanoseconds."""

    name: str
    start: int
    end: int


def profiler(device: torch.device, *, memory: bool = False) -> profile:
    """Make a profiler of a device's work, and of its allocations if asked for."""
    # Its library would report at length that a machine has no accelerator.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda" and not memory:
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities, profile_memory=memory, acc_events=True)


def raw_events(record: profile) -> Any:
    """Return the events one by one, as the profiler's public summaries do not."""
    assert record.profiler is not None
    assert record.profiler.kineto_results is not None
    return record.profiler.kineto_results.events()


def spans(record: profile, device: torch.device) -> list[Span]:
    """List the spans labelled by ``record_function``, outer ones first."""
    # On a GPU they last from the first to the last kernel that was launched inside.
    on_host: list[Span] = []
    on_device: list[Span] = []
    for of in raw_events(record):
        if of.is_user_annotation():
            found = on_host if of.device_type() == DeviceType.CPU else on_device
            found.append(Span(of.name(), of.start_ns(), of.end_ns()))
    chosen = on_device if device.type == "cuda" and on_device else on_host
    return sorted(chosen, key=lambda span: (span.start, -span.end))


def own_times(found: Iterable[Span]) -> list[tuple[Span, float]]:
    """Pair spans, outer ones first, with their seconds outside the spans inside them."""
    own: list[float] = []
    open_spans: list[tuple[int, Span]] = []
    ordered = list(found)
    for index, span in enumerate(ordered):
        while open_spans and open_spans[-1][1].end <= span.start:
            open_spans.pop()
        length = (span.end - span.start) / 1e9
        own.append(length)
        if open_spans:
            own[open_spans[-1][0]] -= length
        open_spans.append((index, span))
    return list(zip(ordered, own, strict=True))


def memory_changes(record: profile, device: torch.device) -> list[tuple[int, int]]:
    """List nanoseconds and bytes allocated, or released if negative, in order."""
    on_host = device.type == "cpu"
    found = [
        (of.start_ns(), of.nbytes())
        for of in raw_events(record)
        if of.name() == "[memory]" and (of.device_type() == DeviceType.CPU) == on_host
    ]
    # A stable sort: of several changes at one time, the first recorded came first.
    return sorted(found, key=lambda change: change[0])


def peak(changes: Iterable[int]) -> int:
    """Return the largest sum of any first few of these changes, at least 0."""
    highest = now = 0
    for change in changes:
        now += change
        highest = max(highest, now)
    return highest
