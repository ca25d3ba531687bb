"""How time and memory of capture, refresh and apply scale with a layer's inputs and the rank.

One linear layer with d inputs trains on rows of noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.baselines import find
from nysact.experiments.bench.candidate import Kind, candidate
from nysact.experiments.bench.options import ScalingOptions
from nysact.experiments.bench.profiled import MIB, Phases, measure_phases, memory_of_parts, release
from nysact.experiments.bench.workload import Workload
from nysact.experiments.formatting import markdown
from nysact.experiments.report.style import panel_grid, styles

# The parts of a step that scale, and the kind of step in which each is measured.
PARTS: Mapping[str, Kind] = {"capture": "statistics", "refresh": "refresh", "apply": "plain"}
OPTIMIZERS = ("nysact", "foof", "released-columns")
STEPS = 21
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
        return f"{find(self.optimizer).title}, d = {self.dim}{rank}: {times}"

    def quantities(self) -> dict[str, float]:
        """Give every measured quantity by its title, in milliseconds or MiB."""
        step = f"a step: capture/{EVERY} + refresh/{REFRESHED_EVERY} + apply"
        times = {**self.seconds, step: self.step}
        memory = {**self.bytes, "state beside momentum": self.state}
        return {
            **{f"{name}, ms": 1000 * seconds for name, seconds in times.items()},
            **{f"{name}, MiB": size / MIB for name, size in memory.items()},
        }


@dataclass(frozen=True)
class Scaling:
    """All measurements."""

    by_dim: list[Point] = field(default_factory=list)
    by_rank: list[Point] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)  # which optimizer stopped where, and why


def measure_scaling(options: ScalingOptions, device: torch.device, say: Say) -> Scaling:
    """Measure every optimizer at every size."""
    found = Scaling()

    def measure(points: list[Point], name: str, dim: int, rank: int) -> None:
        points.append(measure_point(name, dim, rank, options, device))
        say(points[-1].describe())

    for name in OPTIMIZERS:
        for dim in options.dim_list:
            last = [of for of in found.by_dim if of.optimizer == name][-1:]
            stop = too_much(last[0], dim, options) if last else None
            if stop:
                found.stops.append(stop)
                say(stop)
                break
            measure(found.by_dim, name, dim, options.rank)
    for name in OPTIMIZERS:
        # An optimizer without a rank costs the same at each.
        for rank in options.rank_list if has_rank(name) else options.rank_list[:1]:
            measure(found.by_rank, name, options.dim, rank)
    return found


def has_rank(name: str) -> bool:
    """Whether an optimizer has a rank."""
    return "rank" in find(name).defaults


def too_much(last: Point, dim: int, options: ScalingOptions) -> str | None:
    """Say why the next size would exceed a bound, if costs grow like a dense matrix's."""
    seconds = sum(last.seconds.values()) * (dim / last.dim) ** 3
    gib = (last.state + max(last.bytes.values())) * (dim / last.dim) ** 2 / 2**30
    stop = f"{find(last.optimizer).title} stops at d = {last.dim}: a step at {dim} could"
    if seconds > options.most_seconds:
        return f"{stop} take {seconds:.0f} s, over the bound of {options.most_seconds:g} s"
    if gib > options.most_gib:
        return f"{stop} take {gib:.1f} GiB, over the bound of {options.most_gib:g} GiB"
    return None


def measure_point(
    name: str, dim: int, rank: int, options: ScalingOptions, device: torch.device
) -> Point:
    """Measure one optimizer at one size; lr 0, so that every step finds the same."""
    layer = {"in_features": dim, "depth": 1, "classes": options.outputs}
    workload = Workload("mlp", layer, options.rows, device)
    chosen = candidate(name, {"rank": rank}, {"lr": 0.0})
    release()
    kinds = measure_phases(workload, chosen, STEPS)
    seconds = {part: kinds[kind][part] for part, kind in PARTS.items()}
    release()
    return Point(name, dim, rank, seconds, *memory_of_parts(workload, chosen, PARTS))


def exponent(values: pd.Series) -> float:
    """Fit the exponent of a power law to the positive values at the upper half of the sizes."""
    # Fit and half are on a logarithmic scale.
    x, y = values.index.to_numpy(float), values.to_numpy(float)
    used = (y > 0) & (x**2 >= x[:1].prod() * x[-1:].prod())
    if used.sum() < 2:
        return math.nan
    return float(np.polyfit(np.log(x[used]), np.log(y[used]), 1)[0])


def costs(points: Sequence[Point], by: str) -> pd.DataFrame:
    """Lay out costs, with a line for each optimizer and quantity: by size, and the exponent."""
    lines = [
        {"optimizer": of.optimizer, "size": getattr(of, by), "quantity": name, "value": value}
        for of in points
        for name, value in of.quantities().items()
    ]
    keys = ["optimizer", "quantity"]
    frame = pd.DataFrame(lines)
    order = pd.MultiIndex.from_frame(frame[keys].drop_duplicates())
    table = frame.pivot(index=keys, columns="size", values="value").reindex(order)
    return table.assign(exponent=[exponent(line.dropna()) for _, line in table.iterrows()])


def tables(found: Scaling) -> str:
    """Write all figures as Markdown, and which optimizer stopped where."""
    parts = [table(found.by_dim, "dim", "d"), *found.stops, table(found.by_rank, "rank", "r")]
    return "\n\n".join(parts) + "\n"


def table(points: Sequence[Point], by: str, letter: str) -> str:
    """Lay out every quantity, with a dash where it was not measured."""
    frame = costs(points, by).map(lambda value: "–" if math.isnan(value) else f"{value:.3g}")
    rows = [[f"{find(name).title}: {of}", *line] for (name, of), *line in frame.itertuples()]
    return markdown([f"{letter} =", *map(str, frame)], rows)


def draw(points: Sequence[Point], by: str, subject: str) -> Figure:
    """Draw time and memory over ``"dim"`` or ``"rank"`` on logarithmic axes."""
    frame = costs(points, by)
    quantities = list(dict.fromkeys(frame.index.get_level_values("quantity")))
    figure, panels = panel_grid(len(quantities), columns=len(quantities) // 2)
    titles = {name: find(name).title for name in OPTIMIZERS}
    look = styles(list(titles.values()))
    for quantity, axes in zip(quantities, panels, strict=True):
        for name, line in frame.xs(quantity, level="quantity").iterrows():
            values, title = line.drop("exponent").dropna(), titles[name]
            if by == "rank" and not has_rank(name):
                style = {**look[title], "marker": ""}
                axes.axhline(values.iloc[0], **style, label=f"{title}: has no rank")
                continue
            label = f"{title}: {law(by, line['exponent'])}"
            axes.plot(values.index, values, **look[title], markersize=5, label=label)
        label_axes(axes, by, list(frame.columns[:-1]))
        axes.set(title=quantity)
    figure.suptitle(subject)
    return figure


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
    # Below the panel, where it covers no curve.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)


def law(by: str, power: float) -> str:
    """Write a power law."""
    letter = "d" if by == "dim" else "r"
    return "too few points" if math.isnan(power) else f"${letter}^{{{power:.2f}}}$"
