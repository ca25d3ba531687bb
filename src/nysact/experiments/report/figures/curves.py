"""Results over the training or over a setting that is varied: figures 3 to 7 of the paper."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nysact.experiments.formatting import number
from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Results
from nysact.experiments.report.style import (
    Look,
    label_of,
    legend_below,
    logarithmic,
    panel_grid,
    styles,
)

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


# Width over which the rows are spread around a value, so that error bars do not cover each other.
SPREAD = 0.3


def varied_figure(results: Results, metric: Metric, *, time: bool = False) -> Figure | None:
    """Draw a metric, and the time if asked for, over each setting that varies alone."""
    sweeps = results.single_sweeps()
    measures = {f"final {metric.title}": results.measured(metric)}
    if time:
        measures["training time (s)"] = results.runs["training_seconds"].astype(float)
    summaries = {title: results.summary(values) for title, values in measures.items()}
    places = [
        (column, name, title, settings)
        for (column, name), settings in sweeps.items()
        for title, summary in summaries.items()
        if summary["n"][(summary["column"] == column) & summary["setting"].isin(settings)].any()
    ]
    if not places:
        return None
    figure, grid = panel_grid(len(places))
    look = styles(results.rows)
    for (column, name, title, settings), axes in zip(places, grid, strict=True):
        here = summaries[title][summaries[title]["column"] == column]
        draw_panel(axes, here, settings, look)
        axes.set_xticks(range(len(settings)), [number(results.sweeps[s][name]) for s in settings])
        axes.set(
            title=column, xlabel=label_of(name), ylabel=title, xlim=(-0.5, len(settings) - 0.5)
        )
    legend_below(figure, "mean ± standard deviation over the seeds; × where every run failed")
    return figure


def draw_panel(
    axes: Axes, summary: pd.DataFrame, settings: list[str], look: dict[str, Look]
) -> None:
    """Draw a line for each row that varies, and a level for each row that does not."""
    varied = summary[summary["setting"].isin(settings)]
    rows = list(varied["row"].astype(str).unique())
    for place, row in enumerate(rows):
        offset = SPREAD * (place / (len(rows) - 1) - 0.5) if len(rows) > 1 else 0.0
        mine = varied[varied["row"] == row].set_index("setting").reindex(settings)
        draw_row(axes, row, mine.assign(x=[i + offset for i in range(len(settings))]), look[row])
    levels = summary[(summary["setting"] == "") & (summary["n"] > 0) & ~summary["row"].isin(rows)]
    for level in levels.itertuples():
        style, band = look[str(level.row)], (level.mean - level.std, level.mean + level.std)
        axes.axhline(level.mean, **{**style, "marker": ""}, linewidth=1.3, label=level.row)
        axes.axhspan(*band, color=style["color"], alpha=0.12, linewidth=0)


def draw_row(axes: Axes, row: str, lines: pd.DataFrame, look: Look) -> None:
    """Draw the values of a row, with a cross at the bottom where every run failed."""
    found = lines[lines["n"] > 0]
    axes.errorbar(
        found["x"], found["mean"], found["std"],
        **look, markersize=5, linewidth=1.3, capsize=3, label=row,
    )  # fmt: skip
    failed = lines["x"][(lines["n"] == 0) & (lines["failed"] > 0)]
    if len(failed):
        axes.plot(
            failed, [0.03] * len(failed), "x", color=look["color"], markersize=9,
            markeredgewidth=2, transform=axes.get_xaxis_transform(),
        )  # fmt: skip
