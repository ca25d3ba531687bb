"""Results over a setting that is varied: figures 5, 6 and 7 of the paper."""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.formatting import number
from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Results
from nysact.experiments.report.style import Look, label_of, legend_below, panel_grid, styles

# Width over which the rows are spread around a value, so that error bars do not cover each other.
SPREAD = 0.3


class Measure(NamedTuple):
    """A panel's y axis: its label, and the number of each run."""

    title: str
    values: pd.Series


def measure_of(results: Results, metric: Metric) -> Measure:
    """Measure the last value of a metric."""
    return Measure(f"final {metric.title}", results.measured(metric))


def time_of(results: Results) -> Measure:
    """Measure the time of training."""
    return Measure("training time (s)", results.runs["training_seconds"].astype(float))


def varied_figure(results: Results, measures: list[Measure]) -> Figure | None:
    """Draw measures over each setting that varies alone; rows without a sweep are levels."""
    sweeps = results.single_sweeps()
    summaries = {measure.title: results.summary(measure.values) for measure in measures}
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
