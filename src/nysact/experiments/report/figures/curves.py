"""Training loss and test metric over the training: figures 3 and 4 of the paper."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import (
    Group,
    Results,
    progress_name,
    progress_of,
    succeeded,
)
from nysact.experiments.report.style import Style, legend_below, logarithmic, panels, styles
from nysact.experiments.run.store import StoredRun

# From so many epochs on, an axis has ticks at whole epochs only.
WHOLE = 3
Points = Sequence[tuple[float, float]]


def curve_figure(results: Results, metrics: Sequence[Metric], *, by: str) -> Figure | None:
    """Draw metrics over the training: a row of panels for each column of the results.

    Args:
        results: The runs; those that are not finished are left out.
        metrics: One panel each.
        by: ``"epoch"``, or step for runs that are so many steps long, or ``"time"``, that of the
            training alone.

    Returns:
        The figure, or ``None`` if there is nothing to draw.
    """
    found = {
        (group.column, metric.name, group.row): points
        for group in results.groups
        for metric in metrics
        if not group.setting and (points := curves(group, metric, by))
    }
    metrics = [metric for metric in metrics if any(name == metric.name for _, name, _ in found)]
    columns = [column for column in results.columns if any(c == column for c, _, _ in found)]
    if not found:
        return None
    figure = panels(len(columns) * len(metrics), columns=len(metrics))
    grid = figure.subplots(len(columns), len(metrics), squeeze=False)
    look = styles(results.rows)
    for column, row_of_axes in zip(columns, grid, strict=True):
        for metric, axes in zip(metrics, row_of_axes, strict=True):
            for row in results.rows:
                if (column, metric.name, row) in found:
                    draw(axes, row, found[column, metric.name, row], look[row])
            finish(axes, column, metric, progress_name(results, column) if by == "epoch" else by)
    legend_below(figure, "mean over the seeds, in a band from the lowest to the highest")
    return figure


def curves(group: Group, metric: Metric, by: str) -> list[Points]:
    """Read the curve of each finished run.

    Args:
        group: The runs.
        metric: What is on the y axis.
        by: ``"epoch"`` or ``"time"``.

    Returns:
        Points of each curve; none of a run without this metric.
    """
    read = by_epoch if by == "epoch" else by_time
    found = [read(run, metric) for run in group.runs if succeeded(run)]
    return [points for points in found if points]


def by_epoch(run: StoredRun, metric: Metric) -> Points:
    """Give a metric by epoch or step; what is not finite is stored as ``None``, a gap."""
    place = progress_of(run)
    found = [record for record in run.metrics if metric.name in record]
    return [(record[place], number(record[metric.name])) for record in found]


def by_time(run: StoredRun, metric: Metric) -> Points:
    """Give a metric by the seconds of training; records without a time are left out."""
    seconds = {record["step"]: record["seconds"] for record in run.timing}
    found = [r for r in run.metrics if metric.name in r and r["step"] in seconds]
    return [(seconds[record["step"]], number(record[metric.name])) for record in found]


def number(value: float | None) -> float:
    """Make ``None`` not a number."""
    return math.nan if value is None else value


def draw(axes: Axes, label: str, found: Sequence[Points], style: Style) -> None:
    """Draw the mean of several curves, in a band from the lowest to the highest.

    A band of one standard deviation could reach below 0, where a logarithmic axis ends.

    Args:
        axes: Where to draw.
        label: What the legend says.
        found: The curves, as far as all of them go.
        style: How they look.
    """
    together = list(zip(*found, strict=False))
    xs = [fmean(x for x, _ in points) for points in together]
    means, lows, highs = (
        [pick([y for _, y in points]) for points in together] for pick in SUMMARIES
    )
    every = max(1, len(xs) // 8)
    axes.plot(
        xs, means, style.dashes, color=style.color, marker=style.marker, markersize=4,
        markevery=every, linewidth=1.3, label=label,
    )  # fmt: skip
    axes.fill_between(xs, lows, highs, color=style.color, alpha=0.15, linewidth=0)


SUMMARIES: tuple[Callable[[Sequence[float]], float], ...] = (fmean, min, max)


def finish(axes: Axes, column: str, metric: Metric, by: str) -> None:
    """Label the axes."""
    axes.set(title=column, ylabel=metric.title)
    axes.set_xlabel("training time (s)" if by == "time" else by)
    if by == "epoch" and axes.get_xlim()[1] > WHOLE:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    logarithmic(axes, metric)
    axes.grid(alpha=0.3)
