"""How the cost scales, as figures and tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments import baselines
from nysact.experiments.bench.scaling import (
    EVERY,
    OPTIMIZERS,
    PARTS,
    REFRESHED_EVERY,
    Point,
    Scaling,
    exponent,
    has_rank,
)
from nysact.experiments.formatting import markdown
from nysact.experiments.line_styles import STYLES

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
