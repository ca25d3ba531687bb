"""The norm of each layer's covariance over the training: figure 2 of the paper."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.report.results import Results
from nysact.experiments.report.style import legend_below, panels, styles
from nysact.experiments.run.store import StoredRun

KEY = "covariance_norms"


def norm_figure(results: Results) -> Figure | None:
    """Draw the Frobenius norms, a panel for each row and column, a line for each layer.

    Args:
        results: The runs; the first seed of each row and column is drawn.

    Returns:
        The figure, or ``None`` if no run recorded norms.
    """
    shown = [g for g in results.groups if any(KEY in r for r in g.runs[0].metrics)]
    if not shown:
        return None
    figure = panels(len(shown))
    across = min(2, len(shown))
    grid = figure.subplots(-(-len(shown) // across), across, squeeze=False)
    layers = list(dict.fromkeys(name for g in shown for name in norms_of(g.runs[0])))
    for group, axes in zip(shown, grid.flat, strict=False):
        draw_norms(axes, group.runs[0], layers)
        axes.set_title(f"{group.row}, {group.column}, seed {group.runs[0].config['seed']}")
    for axes in grid.flat[len(shown) :]:
        axes.remove()
    legend_below(figure, "layer")
    return figure


def norms_of(run: StoredRun) -> dict[str, list[tuple[int, float]]]:
    """Give step and norm of each layer."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in run.metrics:
        for name, value in record.get(KEY, {}).items():
            found.setdefault(name, []).append((record["step"], value))
    return found


def draw_norms(axes: Axes, run: StoredRun, layers: Sequence[str]) -> None:
    """Draw the norms of a run's layers on a logarithmic axis.

    Args:
        axes: Where to draw.
        run: The run.
        layers: All layers of the figure, which decide on colours.
    """
    look = styles(layers)
    for name, points in norms_of(run).items():
        style = look[name]
        axes.plot(
            [step for step, _ in points], [norm for _, norm in points], style.dashes,
            color=style.color, marker=style.marker, markersize=4,
            markevery=max(1, len(points) // 8), label=name,
        )  # fmt: skip
    axes.set(xlabel="step", ylabel="Frobenius norm of the covariance", yscale="log")
    axes.grid(alpha=0.3)
