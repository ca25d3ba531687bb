"""Memory of a training, each optimizer alone in a pass of its own."""

import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from nysact.experiments.bench.contender import Contender
from nysact.experiments.bench.workload import Training, Workload
from nysact.experiments.state_size import state_bytes, tensors_in
from nysact.experiments.timing import synchronize

# Each takes statistics and refreshes; in the second, momentum and factors are there already.
STEPS = 2
# What SGD with momentum keeps too, by the names that optimizers have for it.
MOMENTUM = ("momentum_buffer", "exp_avg")


@dataclass(frozen=True)
class Memory:
    """Bytes that a training takes; ``None`` for what can't be measured on its device.

    Args:
        allocated: Peak of the bytes in tensors.
        reserved: Peak of the bytes that the allocator holds for them.
        state: Bytes of the optimizer's state.
        beside_momentum: The same without the momentum.
    """

    allocated: int | None
    reserved: int | None
    state: int
    beside_momentum: int


def release() -> None:
    """Give memory back that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_memory(workload: Workload, contender: Contender) -> Memory:
    """Measure the memory of a few steps, of the kind that takes most.

    Args:
        workload: What is trained.
        contender: The optimizer.

    Returns:
        The memory, of tensors on the workload's device.
    """
    release()
    if workload.device.type == "cuda":
        return on_cuda(workload, contender)
    if workload.device.type == "cpu":
        return on_cpu(workload, contender)
    return Memory(None, None, *state_of(train(workload, contender)))


def train(workload: Workload, contender: Contender) -> Optimizer:
    """Take a few steps, all with statistics and refresh, and give the optimizer."""
    model = workload.build()
    optimizer = contender.with_intervals(1, 1).build(model)
    training = Training(workload, model, optimizer)
    for _ in range(STEPS):
        training.step()
    synchronize(workload.device)
    return optimizer


def on_cuda(workload: Workload, contender: Contender) -> Memory:
    """Ask the device's allocator."""
    torch.cuda.reset_peak_memory_stats(workload.device)
    before = torch.cuda.memory_allocated(workload.device)
    reserved_before = torch.cuda.memory_reserved(workload.device)
    state = state_of(train(workload, contender))
    return Memory(
        torch.cuda.max_memory_allocated(workload.device) - before,
        torch.cuda.max_memory_reserved(workload.device) - reserved_before,
        *state,
    )


def on_cpu(workload: Workload, contender: Contender) -> Memory:
    """Add up all allocations and releases of tensors, as the profiler records them."""
    with memory_profile() as record:
        state = state_of(train(workload, contender))
    return Memory(peak(change for _, change in memory_changes(record)), None, *state)


def memory_profile() -> profile:
    """Make a profiler that records every allocation and release of a tensor on the CPU."""
    # Its library would have much to say on a machine without an accelerator.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)


def memory_changes(record: profile) -> list[tuple[int, int]]:
    """List what a profiler has recorded.

    Args:
        record: A profiler of :func:`memory_profile` that has ended.

    Returns:
        Time in nanoseconds, and bytes allocated or, if negative, released; in order.
    """
    found = [(of.start_ns(), of.nbytes()) for of in raw_events(record) if of.name() == "[memory]"]
    # A stable sort: of several changes at one time, the first recorded came first.
    return sorted(found, key=lambda change: change[0])


def raw_events(record: profile) -> Any:
    """Give the events as recorded, in which allocations stand one by one."""
    assert record.profiler is not None
    assert record.profiler.kineto_results is not None
    return record.profiler.kineto_results.events()


def peak(changes: Iterable[int]) -> int:
    """Give the largest sum of any first few of these.

    Args:
        changes: Bytes allocated, or released if negative, in order.

    Returns:
        The peak, at least 0.
    """
    highest = now = 0
    for change in changes:
        now += change
        highest = max(highest, now)
    return highest


def state_of(optimizer: Optimizer) -> tuple[int, int]:
    """Count the bytes of an optimizer's state, and of what it holds beside momentum."""
    momentum = sum(
        tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for name in MOMENTUM
        for tensor in tensors_in(state.get(name))
    )
    total = state_bytes(optimizer)
    return total, total - momentum
