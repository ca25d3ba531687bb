"""How time and memory of capture, refresh and apply scale with a layer's inputs and the rank.

One linear layer with d inputs trains on rows of noise; its statistics are taken at every step and
its factors refreshed at every other. The profiler reads the phases off the library's labels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import record_function

from nysact.experiments import baselines
from nysact.experiments.bench.candidate import candidate
from nysact.experiments.bench.memory import release, state_of
from nysact.experiments.bench.options import ScalingOptions
from nysact.experiments.bench.phases import (
    LABEL,
    Phases,
    memory_changes,
    peak,
    profiler,
    read_phases,
    spans,
)
from nysact.experiments.bench.workload import STEP
from nysact.experiments.devices import synchronize

PARTS = ("capture", "refresh", "apply")
OPTIMIZERS = ("nysact", "foof", "released-columns")
STATISTICS, REFRESH = 1, 2
# The paper's intervals, for the mean cost of a step.
EVERY, REFRESHED_EVERY = 5, 50

Say = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """The cost of one optimizer at one size."""

    optimizer: str
    dim: int  # inputs d of the layer
    rank: int  # for optimizers that have one
    seconds: Phases  # median time of each part
    bytes: Phases  # peak memory of each part, beside what there was before
    state: int  # bytes of the optimizer's state beside momentum

    @property
    def step(self) -> float:
        """Mean time that the parts add to a step, in seconds, at the paper's intervals."""
        capture, refresh, apply = (self.seconds[part] for part in PARTS)
        return capture / EVERY + refresh / REFRESHED_EVERY + apply

    def describe(self) -> str:
        """Write out the times in a line."""
        times = ", ".join(f"{part} {1000 * self.seconds[part]:.2f} ms" for part in PARTS)
        rank = f", rank {self.rank}" if has_rank(self.optimizer) else ""
        return f"{baselines.find(self.optimizer).title}, d = {self.dim}{rank}: {times}"


@dataclass(frozen=True)
class Scaling:
    """All measurements."""

    by_dim: list[Point] = field(default_factory=list)
    by_rank: list[Point] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)  # which optimizer stopped where, and why


def measure_scaling(options: ScalingOptions, device: torch.device, say: Say) -> Scaling:
    """Measure every optimizer at every size."""
    found = Scaling()
    for name in OPTIMIZERS:
        for dim in options.dim_list:
            last = [of for of in found.by_dim if of.optimizer == name][-1:]
            stop = too_much(last[0], dim, options) if last else None
            if stop:
                found.stops.append(stop)
                say(stop)
                break
            found.by_dim.append(measure_point(name, dim, options.rank, options, device))
            say(found.by_dim[-1].describe())
    for name in OPTIMIZERS:
        # An optimizer without a rank costs the same at each.
        for rank in options.rank_list if has_rank(name) else options.rank_list[:1]:
            found.by_rank.append(measure_point(name, options.dim, rank, options, device))
            say(found.by_rank[-1].describe())
    return found


def has_rank(name: str) -> bool:
    """Tell whether an optimizer has a rank."""
    return "rank" in baselines.find(name).defaults


def too_much(last: Point, dim: int, options: ScalingOptions) -> str | None:
    """Say why the next size would exceed a bound, if costs grow like a dense matrix's."""
    seconds = sum(last.seconds.values()) * (dim / last.dim) ** 3
    gib = (last.state + max(last.bytes.values())) * (dim / last.dim) ** 2 / 2**30
    stop = f"{baselines.find(last.optimizer).title} stops at d = {last.dim}: a step at {dim} could"
    if seconds > options.most_seconds:
        return f"{stop} take {seconds:.0f} s, over the bound of {options.most_seconds:g} s"
    if gib > options.most_gib:
        return f"{stop} take {gib:.1f} GiB, over the bound of {options.most_gib:g} GiB"
    return None


def measure_point(
    name: str, dim: int, rank: int, options: ScalingOptions, device: torch.device
) -> Point:
    """Measure one optimizer at one size."""
    release()
    seconds = measure_times(Subject(name, dim, rank, options, device))
    release()
    memory, state = measure_memory(Subject(name, dim, rank, options, device))
    return Point(name, dim, rank, seconds, memory, state)


class Subject:
    """A linear layer, its batch and its optimizer; lr 0, so that every step finds the same."""

    def __init__(
        self, name: str, dim: int, rank: int, options: ScalingOptions, device: torch.device
    ) -> None:
        self.device = device
        generator = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(device)

        self.model = nn.Linear(dim, options.outputs, bias=False, device=device)
        self.model.weight.data.copy_(noise(options.outputs, dim) * dim**-0.5)
        self.batch = noise(options.rows, dim), noise(options.rows, options.outputs)
        chosen = candidate(name, {"rank": rank}, {"lr": 0.0})
        self.optimizer = chosen.with_intervals(STATISTICS, REFRESH).build(self.model)

    @record_function(STEP)
    def step(self) -> None:
        """Take one step."""
        baselines.training_step(self.model, self.optimizer, F.mse_loss, *self.batch)

    def run(self, steps: int) -> None:
        """Take some steps, and wait for the device."""
        for _ in range(steps):
            self.step()
        synchronize(self.device)


def measure_times(subject: Subject) -> Phases:
    """Take the median time of each part over as many steps as about half a second holds."""
    subject.run(1)  # pays for memory and for the choice of kernels
    start = time.perf_counter()
    subject.run(1)
    pairs = max(1, min(10, int(0.5 / (time.perf_counter() - start))))
    with profiler(subject.device) as record:
        subject.run(REFRESH * pairs)
    steps = pd.DataFrame(read_phases(record, subject.device))
    steps = steps.reindex(columns=PARTS).fillna(0.0)
    refreshing = np.arange(len(steps)) % REFRESH == 0
    return {
        "capture": float(steps.capture.median()),
        "refresh": float(steps.refresh[refreshing].median()),
        "apply": float(steps["apply"][~refreshing].median()),  # between refreshes
    }


def measure_memory(subject: Subject) -> tuple[Phases, int]:
    """Measure the peak bytes of each part and the optimizer's state beside momentum."""
    with profiler(subject.device, memory=True) as record:
        subject.run(2 * REFRESH)
    changes = memory_changes(record, subject.device)
    peaks = dict.fromkeys(PARTS, 0.0)
    for name, start, end in spans(record, torch.device("cpu")):
        part = name.removeprefix(LABEL)
        if part in peaks:
            taken = peak(change for when, change in changes if start <= when <= end)
            peaks[part] = max(peaks[part], taken)
    return peaks, state_of(subject.optimizer)[1]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Fit the exponent of a power law to the positive values at the upper half of the sizes."""
    # Fit and half are on a logarithmic scale.
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    used = (y > 0) & (x**2 >= x[:1].prod() * x[-1:].prod())
    if used.sum() < 2:
        return None
    return float(np.polyfit(np.log(x[used]), np.log(y[used]), 1)[0])
