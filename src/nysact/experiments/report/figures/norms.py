"""The norm of each layer's covariance over the training: figure 2 of the paper."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nysact.experiments.report.results import Results
from nysact.experiments.report.style import Style, legend_below, panel_grid, styles

KEY = "covariance_norms."


def norms_of(results: Results) -> pd.DataFrame:
    """Give the norms of the first seed of each group, a line for each layer and step."""
    norms = results.values[results.values["metric"].str.startswith(KEY)]
    first = results.runs.drop_duplicates(["row", "column", "setting"])
    labels = first[["row", "column", "seed"]]
    found = norms.join(labels, on="run", how="inner")
    return found.assign(layer=norms["metric"].str.removeprefix(KEY)).dropna(subset="value")


def norm_figure(results: Results) -> Figure | None:
    """Draw the Frobenius norms, a panel for each row and column, a line for each layer."""
    norms = norms_of(results)
    if norms.empty:
        return None
    groups = [mine for _, mine in norms.groupby("run", sort=False)]
    figure, grid = panel_grid(len(groups))
    look = styles(list(norms["layer"].unique()))
    for mine, axes in zip(groups, grid, strict=True):
        draw_norms(axes, mine, look)
        row, column, seed = mine[["row", "column", "seed"]].iloc[0]
        axes.set_title(f"{row}, {column}, seed {seed}")
    legend_below(figure, "layer")
    return figure


def draw_norms(axes: Axes, norms: pd.DataFrame, look: dict[str, Style]) -> None:
    """Draw the norms of a run's layers on a logarithmic axis."""
    for layer, mine in norms.groupby("layer", sort=False):
        style = look[str(layer)]
        axes.plot(
            mine["step"], mine["value"], style.dashes, color=style.color, marker=style.marker,
            markersize=4, markevery=0.12, label=layer,
        )  # fmt: skip
    axes.set(xlabel="step", ylabel="Frobenius norm of the covariance", yscale="log")
