"""The figures of the theory: measurements and bounds."""

from collections.abc import Sequence

from benchmarks.theory.measure import Accuracy, Decay
from benchmarks.theory.norms import Norms
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.report.style import legend_below, panel_grid, styles

# Errors below this, such as that of the exact inverse, are drawn near 0.
LINEAR = 1e-3


def decay_figure(found: Sequence[Decay]) -> Figure:
    """Draw the mean squared gradient norm over T with its bounds, a panel for each problem."""
    problems = list(dict.fromkeys(decay.problem for decay in found))
    figure, grid = panel_grid(len(problems), columns=len(problems))
    look = styles([name_of(decay) for decay in found])
    for problem, axes in zip(problems, grid, strict=True):
        for decay in found:
            if decay.problem != problem:
                continue
            name, style = name_of(decay), look[name_of(decay)]
            axes.plot(
                decay.steps, decay.measured, color=style["color"], marker=style["marker"],
                markersize=4, markevery=4, label=f"{name}: measured",
            )  # fmt: skip
            axes.plot(decay.steps, decay.bounds, ":", color=style["color"], label=f"{name}: bound")
        finish(axes, problem, "steps T", "mean of $\\|\\nabla f\\|^2$ over the first T steps")
    legend_below(figure)
    return figure


def name_of(decay: Decay) -> str:
    """Name the gradients of a run."""
    return "exact gradient" if decay.batch_size is None else f"batch of {decay.batch_size}"


def accuracy_figure(found: Sequence[Accuracy]) -> Figure:
    """Draw the mean squared gradient norm over the sketch's error, with its bounds."""
    problems = list(dict.fromkeys(one.problem for one in found))
    figure, grid = panel_grid(2 * len(problems))
    for row, problem in zip(zip(grid[::2], grid[1::2], strict=True), problems, strict=True):
        for axes, common in zip(row, (False, True), strict=True):
            mine = [one for one in found if one.problem == problem and one.common == common]
            draw_accuracies(axes, mine)
            rates = "one learning rate for all" if common else "the learning rate the error allows"
            error = "error of the sketch, $\\|A-\\hat{A}\\|_2$"
            finish(axes, f"{problem},\n{rates}", error, "mean of $\\|\\nabla f\\|^2$")
            axes.set_xscale("symlog", linthresh=LINEAR)
            axes.margins(y=0.12)
    legend_below(figure, "numbers beside the points: rank r")
    return figure


def draw_accuracies(axes: Axes, found: Sequence[Accuracy]) -> None:
    """Draw measurements and bounds of each sketch, with the ranks beside the measurements."""
    look = styles(list(dict.fromkeys(one.sketch for one in found)))
    for place, (sketch, style) in zip(((3, 6), (6, -3), (-4, -12)), look.items(), strict=False):
        mine = sorted((one for one in found if one.sketch == sketch), key=lambda one: one.error)
        errors = [one.error for one in mine]
        axes.plot(
            errors, [one.measured for one in mine], color=style["color"], marker=style["marker"],
            label=f"{sketch}: measured",
        )  # fmt: skip
        bounds = [one.bound for one in mine]
        axes.plot(errors, bounds, ":", color=style["color"], label=f"{sketch}: bound")
        for one in mine:
            axes.annotate(
                str(one.rank), (one.error, one.measured), xytext=place,
                textcoords="offset points", fontsize=7, color=style["color"],
            )  # fmt: skip


def norm_figure(found: Sequence[Norms]) -> Figure:
    """Draw the norm of each layer's covariance over the training, a panel for each optimizer."""
    figure, grid = panel_grid(len(found), columns=len(found))
    layers = list(found[0].layers)
    look = styles(layers)
    for norms, axes in zip(found, grid, strict=True):
        for layer in layers:
            style = look[layer]
            axes.plot(
                norms.steps, norms.layers[layer], **style,
                markersize=4, markevery=5, label=f"layer {layer}",
            )  # fmt: skip
        axes.set(title=norms.optimizer, xlabel="step", ylabel="Frobenius norm of the covariance")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Label logarithmic axes."""
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(alpha=0.3)
