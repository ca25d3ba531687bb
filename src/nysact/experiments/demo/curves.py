"""The picture at the end of a comparison."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nysact.experiments.demo.comparison import Summary
from nysact.experiments.line_styles import LEGEND_COLUMNS, STYLES


def save_curves(title: str, summaries: Sequence[Summary], path: Path) -> None:
    """Draw training loss and test accuracy by epoch into a PNG file.

    Args:
        title: What was trained.
        summaries: One for each optimizer.
        path: The file to write.
    """
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    draw(loss, summaries, lambda summary: summary.losses)
    loss.set_ylabel("training loss (cross-entropy)")
    # Where every run has diverged there is nothing that a logarithmic axis could show.
    if any(0 < value < math.inf for line in loss.lines for value in line.get_ydata()):
        loss.set_yscale("log")
    draw(accuracy, summaries, lambda summary: summary.accuracies)
    accuracy.set(ylabel="test accuracy (%)")
    figure.suptitle(title)
    figure.legend(
        *loss.get_legend_handles_labels(),
        title="mean over the seeds, in a band from the lowest to the highest",
        loc="outside lower center",  # where it covers no curve
        ncols=LEGEND_COLUMNS,
    )
    figure.savefig(path, dpi=150)


def draw(
    axes: Axes,
    summaries: Sequence[Summary],
    curves: Callable[[Summary], Sequence[Sequence[float]]],
) -> None:
    """Draw the mean over seeds of each optimizer, in a band from the lowest to the highest.

    A band of one standard deviation could reach below 0, where a logarithmic axis ends.

    Args:
        axes: Where to draw.
        summaries: One for each optimizer.
        curves: Picks what to draw: values by epoch, for each seed.
    """
    for index, summary in enumerate(summaries):
        color, dashes, marker = STYLES[index % len(STYLES)]
        by_epoch = list(zip(*curves(summary), strict=True))
        epochs = range(1, len(by_epoch) + 1)
        means = [fmean(values) for values in by_epoch]
        label = f"{summary.name} (lr {summary.learning_rate:g})"
        axes.plot(epochs, means, dashes, label=label, color=color, marker=marker, markersize=4)
        low, high = map(min, by_epoch), map(max, by_epoch)
        axes.fill_between(epochs, list(low), list(high), color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
