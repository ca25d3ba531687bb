"""Memory of a training, each optimizer alone in a pass of its own."""

import gc
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.optim import Optimizer

from nysact.experiments.bench.candidate import Candidate
from nysact.experiments.bench.phases import (
    LABEL,
    Phases,
    memory_changes,
    peak,
    profiler,
    spans,
)
from nysact.experiments.bench.workload import Training, Workload
from nysact.experiments.devices import state_bytes, synchronize, tensors_in

# Each takes statistics and refreshes; in the second, momentum and factors are there already.
STEPS = 2
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
    for _ in range(STEPS):
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
