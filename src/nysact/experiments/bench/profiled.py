"""The phases and the memory of a step, read from the records of the profiler."""

import gc
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch._C._autograd import DeviceType
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from nysact.experiments.bench.candidate import KINDS, Candidate, Kind
from nysact.experiments.bench.workload import STEP, Training, Workload
from nysact.experiments.devices import state_bytes, synchronize, tensors_in


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


Phases = dict[str, float]  # seconds by phase

EVALUATION, REST = "forward and backward", "rest of step"
PHASES = (EVALUATION, "capture", "reduce", "refresh", "apply", "update", REST)
LABEL = "nysact."  # and the name of the phase

# Every kind of step comes twice or more in this many, the first of all left out; in five steps
# it comes once, which has to do where they take longer than this, in seconds.
STATISTICS, REFRESH, STEPS, PATIENCE = 2, 4, 9, 30.0


def phase_of(label: str) -> str | None:
    """Name the phase that a label belongs to, ``None`` for none of ours."""
    if label.startswith(LABEL) and label.removeprefix(LABEL) in PHASES:
        return label.removeprefix(LABEL)
    if label.startswith("Optimizer.step"):
        return REST
    return EVALUATION if label.startswith("bench.") else None


def read_phases(record: profile, device: torch.device) -> list[Phases]:
    """Give the phases of each step in a profile; together they are the whole step."""
    steps: list[Phases] = []
    known = [span for span in spans(record, device) if phase_of(span.name)]
    for span, seconds in own_times(known):
        if span.name == STEP:
            steps.append({})
        phase = phase_of(span.name)
        if steps and phase:
            steps[-1][phase] = steps[-1].get(phase, 0.0) + seconds
    return steps


def measure_phases(
    workload: Workload, candidate: Candidate, number: int = STEPS
) -> dict[Kind, Phases]:
    """Measure the median of each phase by kind of step, for the kinds that the optimizer has."""
    # A few steps suffice, since the costly ones are made to come soon.
    short = candidate.with_intervals(STATISTICS, REFRESH)
    model = workload.build()
    training = Training(workload, model, short.build(model))
    training.step()  # pays for memory and for the choice of kernels
    started = time.perf_counter()
    with profiler(workload.device) as record:
        for step in range(1, number):
            training.step()
            synchronize(workload.device)
            if step == REFRESH and time.perf_counter() - started > PATIENCE:
                break
    steps = read_phases(record, workload.device)
    kinds = [short.schedule.kind(step) for step in range(1, len(steps) + 1)]
    # A phase that some steps of a kind lack took no time there, one that all lack is left out.
    medians = (
        pd.DataFrame(steps, columns=PHASES)
        .groupby(kinds)
        .agg(lambda seconds: seconds.fillna(0.0).median() if seconds.notna().any() else None)
    )
    return {kind: medians.loc[kind].dropna().to_dict() for kind in KINDS if kind in kinds}


def over_a_cycle(kinds: Mapping[Kind, Phases], candidate: Candidate) -> Phases:
    """Average the phases over a cycle, by how often the candidate takes each kind of step."""
    counts = candidate.schedule.counts()
    number = sum(counts[kind] for kind in kinds)
    return {
        phase: sum(counts[kind] * of.get(phase, 0.0) for kind, of in kinds.items()) / number
        for phase in PHASES
        if any(phase in of for of in kinds.values())
    }


# Each takes statistics and refreshes; in the second, momentum and factors are there already.
MEMORY_STEPS = 2
MIB = 2**20
# What SGD with momentum keeps too, by the names that optimizers have for it.
MOMENTUM = ("momentum_buffer", "exp_avg")


@dataclass(frozen=True)
class Memory:
    """Bytes that a training takes; ``None`` for what can't be measured on its device."""

    allocated: int | None  # peak of the bytes in tensors
    reserved: int | None  # peak of the bytes that the allocator holds for them
    state: int  # of the optimizer
    beside_momentum: int  # the same without the momentum


def release() -> None:
    """Free memory that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_memory(workload: Workload, candidate: Candidate) -> Memory:
    """Measure the memory of steps with statistics and refresh, which take most."""
    release()
    device = workload.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        state = state_of(train(workload, candidate))
        allocated = torch.cuda.max_memory_allocated(device) - before
        return Memory(allocated, torch.cuda.max_memory_reserved(device) - reserved, *state)
    if device.type == "cpu":
        with profiler(device, memory=True) as record:
            state = state_of(train(workload, candidate))
        changes = memory_changes(record, device)
        return Memory(peak(change for _, change in changes), None, *state)
    return Memory(None, None, *state_of(train(workload, candidate)))


def memory_of_parts(
    workload: Workload, candidate: Candidate, parts: Iterable[str]
) -> tuple[Phases, int]:
    """Measure the peak bytes of each part of a step, and of the state beside momentum."""
    with profiler(workload.device, memory=True) as record:
        _, state = state_of(train(workload, candidate))
    changes, labels = memory_changes(record, workload.device), spans(record, torch.device("cpu"))
    peaks: Phases = dict.fromkeys(parts, 0.0)
    for name, start, end in labels:
        part = name.removeprefix(LABEL)
        if part in peaks:
            taken = peak(change for when, change in changes if start <= when <= end)
            peaks[part] = max(peaks[part], taken)
    return peaks, state


def train(workload: Workload, candidate: Candidate) -> Optimizer:
    """Take a few steps, all with statistics and refresh, and return the optimizer."""
    model = workload.build()
    optimizer = candidate.with_intervals(1, 1).build(model)
    training = Training(workload, model, optimizer)
    for _ in range(MEMORY_STEPS):
        training.step()
    synchronize(workload.device)
    return optimizer


def state_of(optimizer: Optimizer) -> tuple[int, int]:
    """Count the bytes of an optimizer's state, and of those beside momentum."""
    momentum = sum(
        tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for name in MOMENTUM
        for tensor in tensors_in(state.get(name))
    )
    total = state_bytes(optimizer)
    return total, total - momentum
