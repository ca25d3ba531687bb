"""How time and memory of capture, refresh and apply scale with a layer's inputs and the rank.

One linear layer with d inputs trains on rows of noise; its statistics are taken at every step and
its factors refreshed at every other. The profiler reads the phases off the library's labels.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
from nysact.experiments.formatting import markdown
from nysact.experiments.line_styles import STYLES

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
    """Whether an optimizer has a rank."""
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


MIB = 2**20

# Title, and the value of a point in milliseconds or MiB.
Quantity = tuple[str, Callable[[Point], float]]

TIMES: Sequence[Quantity] = (
    *((part, lambda point, part=part: 1000 * point.seconds[part]) for part in PARTS),
    (f"a step: capture/{EVERY} + refresh/{REFRESHED_EVERY} + apply", lambda of: 1000 * of.step),
)
MEMORY: Sequence[Quantity] = (
    *((part, lambda point, part=part: point.bytes[part] / MIB) for part in PARTS),
    ("state beside momentum", lambda of: of.state / MIB),
)


def draw(points: Sequence[Point], by: str, subject: str, files: Sequence[Path]) -> None:
    """Draw time and memory over ``"dim"`` or ``"rank"`` on logarithmic axes, as PNG or SVG."""
    figure = Figure(figsize=(16, 9), layout="constrained")
    rows = figure.subplots(2, len(TIMES))
    for panels, quantities, unit in ((rows[0], TIMES, "ms"), (rows[1], MEMORY, "MiB")):
        for axes, (title, value) in zip(panels, quantities, strict=True):
            draw_panel(axes, points, by, value)
            axes.set(title=title, ylabel=f"{'time' if unit == 'ms' else 'memory'} ({unit})")
    figure.suptitle(subject)
    # The layout takes long: once for all files.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for file in files:
        figure.savefig(file, dpi=110)


def draw_panel(
    axes: Axes, points: Sequence[Point], by: str, value: Callable[[Point], float]
) -> None:
    """Draw a line for each optimizer, its exponent in the legend below."""
    for name, (color, dashes, marker) in zip(OPTIMIZERS, STYLES, strict=False):
        mine = [point for point in points if point.optimizer == name]
        title, values = baselines.find(name).title, [value(point) for point in mine]
        if by == "rank" and not has_rank(name):
            axes.axhline(values[0], color=color, linestyle=dashes, label=f"{title}: has no rank")
            continue
        at = [getattr(point, by) for point in mine]
        label = f"{title}: {law(by, exponent(at, values))}"
        axes.plot(at, values, dashes, color=color, marker=marker, markersize=5, label=label)
    label_axes(axes, by, sorted({getattr(point, by) for point in points}))


def label_axes(axes: Axes, by: str, sizes: Sequence[int]) -> None:
    """Make the axes logarithmic, with a tick for each size and whole decades of the values."""
    axes.set_xscale("log", base=2 if by == "dim" else 10)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45)
    axes.minorticks_off()
    low, high = axes.dataLim.intervaly
    if low > 0:
        axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes.set_xlabel("inputs of the layer, d" if by == "dim" else "rank r")
    axes.grid(alpha=0.3)
    # Below the panel, where it covers no curve.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)


def law(by: str, power: float | None) -> str:
    """Write a power law."""
    letter = "d" if by == "dim" else "r"
    return "too few points" if power is None else f"${letter}^{{{power:.2f}}}$"


def tables(found: Scaling) -> str:
    """Write all figures as Markdown, and which optimizer stopped where."""
    parts = [table(found.by_dim, "dim", "d"), *found.stops, table(found.by_rank, "rank", "r")]
    return "\n\n".join(parts) + "\n"


def table(points: Sequence[Point], by: str, letter: str) -> str:
    """Lay out every quantity, a column for each size."""
    sizes = sorted({getattr(point, by) for point in points})
    rows = []
    for name in OPTIMIZERS:
        mine = {getattr(point, by): point for point in points if point.optimizer == name}
        for unit, quantities in (("ms", TIMES), ("MiB", MEMORY)):
            for title, value in quantities:
                values = {size: value(point) for size, point in mine.items()}
                rows.append(line(f"{baselines.find(name).title}: {title}, {unit}", sizes, values))
    return markdown([f"{letter} =", *map(str, sizes), "exponent"], rows)


def line(title: str, sizes: Sequence[int], values: Mapping[int, float]) -> list[str]:
    """Write one quantity of one optimizer, with a dash where it was not measured."""
    power = exponent(list(values), list(values.values()))
    cells = [f"{values[size]:.3g}" if size in values else "–" for size in sizes]
    return [title, *cells, "–" if power is None else f"{power:.2f}"]
