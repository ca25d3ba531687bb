"""Curves, varied settings, searches and covariances: all figures of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, MaxNLocator
from numpy.typing import NDArray

from nysact.experiments.formatting import number
from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Results, numbers_first
from nysact.experiments.report.style import (
    PANEL,
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
        axes.set(title=column, ylabel=metric.title, xlabel="training time (s)")
        if by == "epoch":
            axes.set_xlabel(plain.runs["progress"][plain.runs["column"] == column].iloc[0])
            whole = axes.get_xlabel() == "epoch" and axes.get_xlim()[1] > WHOLE
            axes.xaxis.set_major_locator(MaxNLocator(integer=True) if whole else AutoLocator())
        logarithmic(axes, metric)
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


def draw(axes: Axes, label: str, points: pd.DataFrame, look: Look) -> None:
    """Draw a mean in a band of extremes: a deviation could reach below 0, where a log axis ends."""
    x, mean, low, high = (points[name].to_numpy() for name in ("x", "mean", "low", "high"))
    axes.plot(x, mean, **look, markersize=4, markevery=0.12, linewidth=1.3, label=label)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


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


# From this ratio of the largest to the smallest value on, an axis is logarithmic.
DECADE = 10.0


def search_figure(results: Results, metric: Metric) -> Figure | None:
    """Draw each trial of a search as a point, in a panel for each setting."""
    summary = results.summary(results.measured(metric)).dropna(subset="mean")
    trials = summary[summary["setting"] != ""].join(results.sweeps, on="setting")
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
        axes.set(xlabel=label_of(name), ylabel=f"final {metric.title}")
        numbers = [v for v in mine["x"] if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(mine) and 0 < min(numbers) <= max(numbers) / DECADE:
            axes.set_xscale("log")
        logarithmic(axes, metric)
    legend_below(figure, "one point a trial, mean over its seeds")
    return figure


NORMS = "covariance_norms."
Matrices = Mapping[str, NDArray[np.floating]]
# The array of each layer that the others approximate.
EXACT = "covariance"
# The largest entries, a share of them, all get the brightest colour.
BRIGHTEST = 0.995


def heatmap_figure(results: Results) -> Figure | None:
    """Draw the matrices of the first run that recorded any, a row of panels for each layer."""
    run = next((r for r in results.runs["stored"] if (r.path / "arrays.npz").is_file()), None)
    layers = {} if run is None else matrices(run.path / "arrays.npz")
    if run is None or not layers:
        return None
    across = max(len(found) for found in layers.values())
    side = 0.75 * PANEL[0]
    figure = Figure((side * across + 0.8, (side + 0.4) * len(layers)), layout="constrained")
    grid = figure.subplots(len(layers), across, squeeze=False)
    for (layer, found), row_of_axes in zip(layers.items(), grid, strict=True):
        draw_layer(figure, list(row_of_axes), layer, found)
    config = run.config
    figure.suptitle(f"{config['column']} trained with {config['row']}, seed {config['seed']}")
    return figure


def matrices(path: Path) -> dict[str, dict[str, NDArray[np.floating]]]:
    """Read the matrices, stored as ``layer/name``, of each layer that has an exact one, first."""
    found: dict[str, dict[str, NDArray[np.floating]]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            layer, _, name = key.rpartition("/")
            # Of a grouped convolution, the first group.
            matrix = arrays[key]
            found.setdefault(layer, {})[name] = matrix[0] if matrix.ndim == 3 else matrix
    return {
        layer: dict(sorted(names.items(), key=lambda item: item[0] != EXACT))
        for layer, names in found.items()
        if EXACT in names
    }


def draw_layer(figure: Figure, row_of_axes: list[Axes], layer: str, found: Matrices) -> None:
    """Draw a layer's matrices in one colour scale, with the errors of the approximations."""
    exact = found[EXACT]
    low, high = float(np.quantile(exact, 1 - BRIGHTEST)), float(np.quantile(exact, BRIGHTEST))
    for (name, matrix), axes in zip(found.items(), row_of_axes, strict=False):
        # Cividis looks much the same to colour-blind readers.
        image = axes.imshow(matrix, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        error = np.linalg.norm(matrix - exact) / np.linalg.norm(exact)
        shown = "exact covariance" if name == EXACT else f"{name}\nrelative error {error:.2f}"
        axes.set(title=f"{layer}: {shown}", xlabel="input feature", ylabel="input feature")
    for axes in row_of_axes[len(found) :]:
        axes.remove()
    figure.colorbar(image, ax=row_of_axes[: len(found)], label="covariance of two inputs")


def norm_figure(results: Results) -> Figure | None:
    """Draw the norms of the first seed of each row and column, a line for each layer."""
    norms = results.values[results.values["metric"].str.startswith(NORMS)].dropna(subset="value")
    first = results.runs.drop_duplicates(["row", "column", "setting"])
    norms = norms.join(first[["row", "column", "seed"]], on="run", how="inner")
    if norms.empty:
        return None
    groups = [mine for _, mine in norms.groupby("run", sort=False)]
    figure, grid = panel_grid(len(groups))
    look = styles([name.removeprefix(NORMS) for name in norms["metric"].unique()])
    for mine, axes in zip(groups, grid, strict=True):
        for name, line in mine.groupby("metric", sort=False):
            layer = str(name).removeprefix(NORMS)
            style = look[layer] | {"markersize": 4, "markevery": 0.12}
            axes.plot(line["step"], line["value"], **style, label=layer)
        axes.set(xlabel="step", ylabel="Frobenius norm of the covariance", yscale="log")
        row, column, seed = mine[["row", "column", "seed"]].iloc[0]
        axes.set_title(f"{row}, {column}, seed {seed}")
    legend_below(figure, "layer")
    return figure
