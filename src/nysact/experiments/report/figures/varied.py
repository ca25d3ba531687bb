"""Results over a setting that is varied: figures 5, 6 and 7 of the paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Group, Results, final
from nysact.experiments.report.style import (
    Style,
    label_of,
    legend_below,
    numbers_first,
    panels,
    styles,
    value_text,
)
from nysact.experiments.run.store import StoredRun

# Width over which the rows are spread around a value, so that error bars do not cover each other.
SPREAD = 0.3


@dataclass(frozen=True)
class Measure:
    """What is on the y axis.

    Args:
        title: The axis's label.
        read: Reads it off a run.
    """

    title: str
    read: Callable[[StoredRun], float | None]


def measure_of(metric: Metric) -> Measure:
    """Measure the last value of a metric."""
    return Measure(f"final {metric.title}", lambda run: final(run, metric))


def training_time(run: StoredRun) -> float | None:
    """Read the seconds of training."""
    return None if run.timings is None else float(run.timings["training_seconds"])


TIME = Measure("training time (s)", training_time)


def varied_figure(results: Results, measures: Sequence[Measure]) -> Figure | None:
    """Draw measures over each setting that is varied alone, for each column.

    Args:
        results: The runs; rows of runs in which nothing is varied are drawn as references.
        measures: One panel each.

    Returns:
        The figure, or ``None`` if nothing is varied.
    """
    alone = [group for group in results.groups if len(group.setting) == 1]
    references = [group for group in results.groups if not group.setting]
    names = list(dict.fromkeys(group.setting[0][0] for group in alone))
    places = [
        (column, name, measure)
        for column in results.columns
        for name in names
        for measure in measures
        if any((g.column, g.setting[0][0]) == (column, name) for g in alone)
    ]
    if not places:
        return None
    figure = panels(len(places))
    across = min(2, len(places))
    grid = figure.subplots(-(-len(places) // across), across, squeeze=False)
    look = styles(results.rows)
    for (column, name, measure), axes in zip(places, grid.flat, strict=False):
        here = [g for g in alone if (g.column, g.setting[0][0]) == (column, name)]
        beside = [g for g in references if g.column == column]
        draw_panel(axes, here, beside, measure, look)
        axes.set(title=column, xlabel=label_of(name), ylabel=measure.title)
    for axes in grid.flat[len(places) :]:
        axes.remove()
    legend_below(figure, "mean ± standard deviation over the seeds; × where every run failed")
    return figure


def draw_panel(
    axes: Axes,
    groups: Sequence[Group],
    references: Sequence[Group],
    measure: Measure,
    look: dict[str, Style],
) -> None:
    """Draw one line for each row, and a level for each reference.

    Args:
        axes: Where to draw.
        groups: One for each row and value.
        references: Those in which the setting is not varied.
        measure: What is drawn.
        look: A style for each row.
    """
    values = sorted({group.setting[0][1] for group in groups}, key=numbers_first)
    rows = list(dict.fromkeys(group.row for group in groups))
    for place, row in enumerate(rows):
        offset = SPREAD * (place / max(1, len(rows) - 1) - 0.5) if len(rows) > 1 else 0.0
        mine = {group.setting[0][1]: group for group in groups if group.row == row}
        draw_row(axes, row, [mine.get(value) for value in values], measure, look[row], offset)
    for group in references:
        if group.row not in rows:
            draw_level(axes, group, measure, look[group.row])
    axes.set_xticks(range(len(values)), [value_text(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.grid(alpha=0.3)


def draw_row(
    axes: Axes,
    row: str,
    groups: Sequence[Group | None],
    measure: Measure,
    style: Style,
    offset: float,
) -> None:
    """Draw the values of one row, with a cross at the bottom where every run failed.

    Args:
        axes: Where to draw.
        row: Its name.
        groups: The runs at each value, ``None`` where there are none.
        measure: What is drawn.
        style: How it looks.
        offset: How far it is shifted to the right.
    """
    samples = [None if group is None else group.sample(measure.read) for group in groups]
    found = [(i + offset, s) for i, s in enumerate(samples) if s is not None and s.values]
    axes.errorbar(
        [x for x, _ in found], [s.mean for _, s in found], [s.deviation for _, s in found],
        linestyle=style.dashes, color=style.color, marker=style.marker, markersize=5,
        linewidth=1.3, capsize=3, label=row,
    )  # fmt: skip
    failed = [
        i + offset for i, s in enumerate(samples) if s is not None and s.failed and not s.values
    ]
    if failed:
        axes.plot(
            failed, [0.03] * len(failed), "x", color=style.color, markersize=9,
            markeredgewidth=2, transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def draw_level(axes: Axes, group: Group, measure: Measure, style: Style) -> None:
    """Draw the mean of a reference as a line, in a band of one standard deviation."""
    sample = group.sample(measure.read)
    if not sample.values:
        return
    axes.axhline(
        sample.mean, linestyle=style.dashes, color=style.color, linewidth=1.3, label=group.row
    )
    low, high = sample.mean - sample.deviation, sample.mean + sample.deviation
    axes.axhspan(low, high, color=style.color, alpha=0.12, linewidth=0)
