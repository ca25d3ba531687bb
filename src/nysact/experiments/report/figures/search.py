"""What a search found: the metric of every trial over each setting that was varied."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Group, Results, Sample, final
from nysact.experiments.report.style import (
    Style,
    label_of,
    legend_below,
    logarithmic,
    numbers_first,
    panels,
    styles,
)

# From this ratio of the largest to the smallest value on, an axis is logarithmic.
DECADE = 10.0


def search_figure(results: Results, metric: Metric) -> Figure | None:
    """Draw each trial as a point, in a panel for each setting.

    Args:
        results: The runs.
        metric: What is on the y axis.

    Returns:
        The figure, or ``None`` if no finished trial varied anything.
    """
    trials = [(g, g.sample(lambda run: final(run, metric))) for g in results.groups if g.setting]
    trials = [(group, sample) for group, sample in trials if sample.values]
    names = list(dict.fromkeys(name for group, _ in trials for name, _ in group.setting))
    if not names:
        return None
    figure = panels(len(names))
    across = min(2, len(names))
    grid = figure.subplots(-(-len(names) // across), across, squeeze=False)
    look = styles([f"{group.row}, {group.column}" for group, _ in trials])
    for name, axes in zip(names, grid.flat, strict=False):
        for label, style in look.items():
            mine = [t for t in trials if f"{t[0].row}, {t[0].column}" == label]
            draw_points(axes, name, label, mine, style)
        finish(axes, name, metric, [dict(group.setting).get(name) for group, _ in trials])
    for axes in grid.flat[len(names) :]:
        axes.remove()
    legend_below(figure, "one point a trial, mean over its seeds")
    return figure


def draw_points(
    axes: Axes, name: str, label: str, trials: Sequence[tuple[Group, Sample]], style: Style
) -> None:
    """Draw the trials that varied a setting.

    Args:
        axes: Where to draw.
        name: The setting.
        label: What the legend says.
        trials: The trials of one row and column.
        style: How the points look.
    """
    points = [(dict(group.setting), sample.mean) for group, sample in trials]
    found = [(values[name], mean) for values, mean in points if name in values]
    found.sort(key=lambda point: numbers_first(point[0]))
    xs = [x if isinstance(x, int | float) else str(x) for x, _ in found]
    axes.plot(xs, [y for _, y in found], style.marker, color=style.color, label=label, alpha=0.8)


def finish(axes: Axes, name: str, metric: Metric, values: Sequence[object]) -> None:
    """Label the axes; that of positive numbers over a decade or more is logarithmic."""
    axes.set(xlabel=label_of(name), ylabel=f"final {metric.title}")
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    present = [value for value in values if value is not None]
    if len(numbers) == len(present) and min(numbers) > 0 and max(numbers) / min(numbers) >= DECADE:
        axes.set_xscale("log")
    logarithmic(axes, metric)
    axes.grid(alpha=0.3)
