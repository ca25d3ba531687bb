"""The figures of the theory: measured, and allowed."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.report.style import legend_below, panels, styles
from nysact.experiments.theory.claims import Accuracy, Decay
from nysact.experiments.theory.norms import Norms


def decay_figure(found: Sequence[Decay]) -> Figure:
    """Draw the mean squared gradient norm over T with its bounds, a panel for each problem."""
    problems = list(dict.fromkeys(decay.problem for decay in found))
    figure = panels(len(problems))
    look = styles([name_of(decay) for decay in found])
    for problem, axes in zip(
        problems, figure.subplots(1, len(problems), squeeze=False).flat, strict=True
    ):
        for decay in found:
            if decay.problem != problem:
                continue
            name, style = name_of(decay), look[name_of(decay)]
            axes.plot(
                decay.steps, decay.measured, color=style.color, marker=style.marker, markersize=4,
                markevery=4, label=f"{name}: measured",
            )  # fmt: skip
            axes.plot(decay.steps, decay.bounds, ":", color=style.color, label=f"{name}: bound")
        finish(axes, problem, "steps T", "mean of $\\|\\nabla f\\|^2$ over the first T steps")
    legend_below(figure)
    return figure


def name_of(decay: Decay) -> str:
    """Name the gradients of a run."""
    return "exact gradient" if decay.batch_size is None else f"batch of {decay.batch_size}"


def accuracy_figure(found: Sequence[Accuracy]) -> Figure:
    """Draw the mean squared gradient norm and the loss that is left over the sketch's error."""
    problems = list(dict.fromkeys(one.problem for one in found))
    figure = panels(2)
    left, right = figure.subplots(1, 2)
    look = styles(problems)
    for problem in problems:
        mine = sorted((one for one in found if one.problem == problem), key=lambda a: a.error)
        errors = [one.error for one in mine]
        style = look[problem]
        for axes, values in (
            (left, [one.measured for one in mine]),
            (right, [one.excess for one in mine]),
        ):
            axes.plot(
                errors, values, color=style.color, marker=style.marker, label=f"{problem}: measured"
            )
        left.plot(
            errors, [one.bound for one in mine], ":", color=style.color, label=f"{problem}: bound"
        )
    error = "error of the sketch, $\\|A-\\hat{A}\\|_2$"
    finish(left, "", error, "mean of $\\|\\nabla f\\|^2$")
    finish(right, "", error, "loss above the minimum at the end")
    for axes in (left, right):
        axes.set_xscale("symlog", linthresh=LINEAR)
        ranks = {one.rank: one.error for one in found}
        top = axes.twiny()
        top.set_xscale("symlog", linthresh=LINEAR)
        top.set_xlim(axes.get_xlim())
        top.set_xticks(list(ranks.values()), [str(rank) for rank in ranks])
        top.set_xlabel("rank r")
        top.minorticks_off()
    legend_below(figure)
    return figure


# Errors below this, such as that of the exact inverse, are shown at 0.
LINEAR = 1e-3


def norm_figure(found: Sequence[Norms]) -> Figure:
    """Draw the norm of each layer's covariance over the training, a panel for each optimizer."""
    figure = panels(len(found))
    layers = list(found[0].layers)
    look = styles(layers)
    for norms, axes in zip(found, figure.subplots(1, len(found), squeeze=False).flat, strict=True):
        for layer in layers:
            style = look[layer]
            axes.plot(
                norms.steps, norms.layers[layer], style.dashes, color=style.color,
                marker=style.marker, markersize=4, markevery=5, label=f"layer {layer}",
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
