"""The look of figures: colours, dashes and markers, labels of settings, and the files written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from nysact.experiments.line_styles import LEGEND_COLUMNS, STYLES
from nysact.experiments.metrics import Metric

Look = dict[str, Any]  # color, linestyle and marker
# These have the same style in every figure: the first styles, in this order, in which optimizers
# that are often shown together differ in colour. Another name gets the next free style.
KNOWN = (*("SGD", "AdamW", "NysAct", "FOOF", "Eva", "KFAC", "NysAct-S", "Adam", "NysAct-G"),)
LABELS = {
    "lr": "learning rate",
    "damping": "damping ρ",
    "stat_decay": "decay β₂ of the statistics",
    "rank": "rank r",
    "inv_interval": "steps between refreshes τ_inv",
    "cov_interval": "steps between statistics τ_cov",
}
# Width of a panel and height of a row of panels, and the space for a legend, in inches.
PANEL, LEGEND = (5.0, 3.8), 0.9
# Resolution of a PNG, and the width in inches from which it is lower.
DPI, LARGE = 150, 14
# From this ratio of the largest to the smallest value on, a logarithmic axis has ticks to read.
WIDE = 5.0
# Width of the line of a legend's entry with the space around it, and of a character, in inches.
HANDLE, CHARACTER = 0.75, 0.085


def styles(rows: Sequence[str]) -> dict[str, Look]:
    """Give each name a style of its own, for ``plot``; past the number of styles they recur."""
    places = {row: KNOWN.index(row) for row in rows if row in KNOWN}
    free = [place for place in range(len(STYLES)) if place not in places.values()]
    for index, row in enumerate(row for row in dict.fromkeys(rows) if row not in KNOWN):
        places[row] = free[index % len(free)] if free else index % len(STYLES)
    names = ("color", "linestyle", "marker")
    return {row: dict(zip(names, STYLES[places[row]], strict=True)) for row in rows}


def panel_grid(count: int, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many panels, with room for a legend below."""
    across = min(count, columns)
    down = -(-count // across)
    size = (PANEL[0] * across, PANEL[1] * down + LEGEND)
    figure = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    for axes in grid.flat[:count]:
        axes.grid(alpha=0.3)
    return figure, list(grid.flat[:count])


def label_of(name: str) -> str:
    """Name a setting for an axis: ``optimizer.options.lr`` is the learning rate."""
    last = name.rpartition(".")[2]
    return LABELS.get(last, last.replace("_", " "))


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and as SVG, in the same bytes whenever it is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]
    dpi = DPI if figure.get_figwidth() < LARGE else DPI * 2 / 3
    with mpl.rc_context({"svg.hashsalt": "nysact"}):
        figure.savefig(files[0], dpi=dpi, metadata={"Software": None})
        figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    return files


def logarithmic(axes: Axes, metric: Metric) -> None:
    """Make the y axis of a loss logarithmic where its positive values span enough for that."""
    values = np.concatenate([np.empty(0), *(line.get_ydata() for line in axes.lines)])
    shown = values[np.isfinite(values) & (values > 0)]
    if metric.log and shown.size and shown.max() >= WIDE * shown.min():
        axes.set_yscale("log")
        # Ticks between the powers of ten, and numbers as a reader would write them.
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, title: str = "") -> None:
    """Put one legend for all panels below them, each label once, where it covers no curve."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    widest = HANDLE + CHARACTER * max(map(len, entries), default=0)
    across = max(1, min(LEGEND_COLUMNS, int(figure.get_figwidth() / widest)))
    legend = {"title": title or None, "ncols": across}
    figure.legend([*entries.values()], [*entries], loc="outside lower center", **legend)
