"""The results of a search: a point for each trial, and a heat map of a grid of two settings."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.formatting import number
from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Results, numbers_first
from nysact.experiments.report.style import label_of, legend_below, logarithmic, panel_grid, styles

# From this ratio of the largest to the smallest value on, an axis is logarithmic.
DECADE = 10.0
# A grid has results for at least this share of its cells, and at most so many values a side.
FILLED, SIDE = 0.5, 12


def trials_of(results: Results, metric: Metric) -> pd.DataFrame:
    """Give mean, row, column and sweep of each trial that has a result or failed."""
    summary = results.summary(results.measured(metric))
    trials = summary[(summary["setting"] != "") & (summary["n"] + summary["failed"] > 0)]
    return trials.join(results.sweeps, on="setting")


def search_figure(results: Results, metric: Metric) -> Figure | None:
    """Draw each trial as a point, in a panel for each setting."""
    trials = trials_of(results, metric).dropna(subset="mean")
    names = list(dict.fromkeys(name for sweep in trials["sweep"] for name in sorted(sweep)))
    if not names:
        return None
    figure, grid = panel_grid(len(names))
    trials["label"] = trials["row"].astype(str) + ", " + trials["column"].astype(str)
    look = styles(list(trials["label"].unique()))
    for name, axes in zip(names, grid, strict=True):
        mine = trials.assign(x=trials["sweep"].map(lambda sweep, name=name: sweep.get(name)))
        mine = mine.dropna(subset="x").sort_values("x", key=lambda xs: xs.map(numbers_first))
        for label, points in mine.groupby("label"):
            xs = [x if isinstance(x, int | float) else str(x) for x in points["x"]]
            style = {**look[str(label)], "linestyle": ""}
            axes.plot(xs, points["mean"], **style, label=label, alpha=0.8)
        finish(axes, name, metric, list(mine["x"]))
    legend_below(figure, "one point a trial, mean over its seeds")
    return figure


def finish(axes: Axes, name: str, metric: Metric, values: list[object]) -> None:
    """Label the axes; that of positive numbers over a decade or more is logarithmic."""
    axes.set(xlabel=label_of(name), ylabel=f"final {metric.title}")
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and 0 < min(numbers) <= max(numbers) / DECADE:
        axes.set_xscale("log")
    logarithmic(axes, metric)


def grid_figure(results: Results, metric: Metric) -> Figure | None:
    """Draw a heat map of each row and column in which two settings are varied together."""
    trials = trials_of(results, metric)
    grids = {
        f"{row}, {column}": grid
        for (column, row), mine in trials.groupby(["column", "row"], observed=True)
        if (grid := grid_of(mine)) is not None
    }
    if not grids:
        return None
    figure, panels = panel_grid(len(grids))
    for (title, grid), axes in zip(grids.items(), panels, strict=True):
        draw_grid(axes, grid, metric)
        axes.set_title(title)
    return figure


def grid_of(trials: pd.DataFrame) -> pd.DataFrame | None:
    """Pivot the means by the two settings; ``None`` if there are not two, or most is missing."""
    names = sorted({name for sweep in trials["sweep"] for name in sweep})
    if len(names) != 2 or not all(len(sweep) == 2 for sweep in trials["sweep"]):
        return None
    axes = {name: [sweep[name] for sweep in trials["sweep"]] for name in names}
    orders = {name: sorted(set(map(hashable, axes[name])), key=numbers_first) for name in names}
    frame = pd.DataFrame({n: list(map(hashable, axes[n])) for n in names}, dtype=object)
    grid = frame.assign(mean=trials["mean"].to_numpy()).pivot(
        index=names[0], columns=names[1], values="mean"
    )
    grid = grid.reindex(index=orders[names[0]], columns=orders[names[1]])
    small = all(2 <= side <= SIDE for side in grid.shape)
    return grid if small and grid.notna().to_numpy().mean() >= FILLED else None


def hashable(value: object) -> object:
    """Write a list, which cannot be a heading, as text."""
    return str(value) if isinstance(value, list) else value


def draw_grid(axes: Axes, grid: pd.DataFrame, metric: Metric) -> None:
    """Draw a grid with its numbers, the better the brighter; × marks what failed or is missing."""
    colors = "cividis" if metric.higher else "cividis_r"
    image = axes.imshow(grid.to_numpy(float), cmap=colors, aspect="auto")
    middle = (grid.max(axis=None) + grid.min(axis=None)) / 2
    for y, line in enumerate(grid.to_numpy(float)):
        for x, value in enumerate(line):
            bright = (value > middle) == metric.higher
            text = "×" if pd.isna(value) else f"{value:.{metric.digits}f}"
            color = "black" if bright or pd.isna(value) else "white"
            axes.text(x, y, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(grid.shape[1]), list(map(number, grid.columns)))
    axes.set_yticks(range(grid.shape[0]), list(map(number, grid.index)))
    axes.set(xlabel=label_of(str(grid.columns.name)), ylabel=label_of(str(grid.index.name)))
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, label=f"final {metric.title}")
