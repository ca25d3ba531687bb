"""Training loss and test metric over the training: figures 3 and 4 of the paper."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Results
from nysact.experiments.report.style import Look, legend_below, logarithmic, panel_grid, styles

# From so many epochs on, an axis has ticks at whole epochs only.
WHOLE = 3


def curve_figure(results: Results, metrics: Sequence[Metric], *, by: str) -> Figure | None:
    """Draw metrics of finished runs by ``"epoch"`` (or step) or by training ``"time"``."""
    plain = results.plain
    curves = {metric: mean_curves(plain, metric, by) for metric in metrics}
    metrics = [metric for metric in metrics if len(curves[metric])]
    columns = [c for c in plain.columns if any((curves[m]["column"] == c).any() for m in metrics)]
    if not metrics:
        return None
    figure, grid = panel_grid(len(columns) * len(metrics), columns=len(metrics))
    look = styles(results.rows)
    places = [(column, metric) for column in columns for metric in metrics]
    for (column, metric), axes in zip(places, grid, strict=True):
        mine = curves[metric][curves[metric]["column"] == column]
        for row, points in mine.groupby("row", observed=True):
            draw(axes, str(row), points, look[str(row)])
        finish(axes, column, metric, progress(plain, column) if by == "epoch" else by)
    legend_below(figure, "mean over the seeds, in a band from the lowest to the highest")
    return figure


def mean_curves(results: Results, metric: Metric, by: str) -> pd.DataFrame:
    """Take mean, lowest and highest over the seeds, as far as all of them go."""
    mine = results.curves(metric)
    mine = mine[mine["state"] == "finished"]
    place = mine["seconds"] if by == "time" else mine["epoch"].where(mine["progress"] == "epoch",
                                                                     mine["step"])  # fmt: skip
    mine = mine.assign(x=place.astype(float)).dropna(subset="x")
    mine["point"] = mine.groupby("run").cumcount()
    points = mine.groupby(["column", "row", "point"], observed=True).agg(
        x=("x", "mean"), mean=("value", "mean"), low=("value", "min"), high=("value", "max"),
        seeds=("value", "size"), finite=("value", "count"),
    )  # fmt: skip
    # Where a loss was not finite, the curve has a gap.
    points.loc[points["finite"] < points["seeds"], ["mean", "low", "high"]] = float("nan")
    complete = points.groupby(["column", "row"], observed=True)["seeds"].transform("max")
    return points[points["seeds"] == complete].reset_index().groupby(
        ["column", "row"], observed=True).filter(lambda one: one["mean"].notna().any())  # fmt: skip


def progress(results: Results, column: str) -> str:
    """Say what the progress of a column's runs is counted in: epochs or steps."""
    return str(results.runs["progress"][results.runs["column"] == column].iloc[0])


def draw(axes: Axes, label: str, points: pd.DataFrame, look: Look) -> None:
    """Draw a mean in a band of extremes: a deviation could reach below 0, where a log axis ends."""
    x, mean, low, high = (points[name].to_numpy() for name in ("x", "mean", "low", "high"))
    axes.plot(x, mean, **look, markersize=4, markevery=0.12, linewidth=1.3, label=label)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def finish(axes: Axes, column: str, metric: Metric, by: str) -> None:
    """Label the axes."""
    axes.set(title=column, ylabel=metric.title)
    axes.set_xlabel("training time (s)" if by == "time" else by)
    if by == "epoch" and axes.get_xlim()[1] > WHOLE:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    logarithmic(axes, metric)
