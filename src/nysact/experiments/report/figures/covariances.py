"""The covariances of the layers' inputs: figures 1 and 2 of the paper.

Figure 1 shows a layer's covariance beside its low-rank approximations, figure 2 the norm of each
layer's covariance over the training.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nysact.experiments.report.results import Results
from nysact.experiments.report.style import PANEL, legend_below, panel_grid, styles

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


def norms_of(results: Results) -> pd.DataFrame:
    """Give the norms of the first seed of each group, a line for each layer and step."""
    norms = results.values[results.values["metric"].str.startswith(NORMS)]
    first = results.runs.drop_duplicates(["row", "column", "setting"])
    found = norms.join(first[["row", "column", "seed"]], on="run", how="inner")
    return found.assign(layer=norms["metric"].str.removeprefix(NORMS)).dropna(subset="value")


def norm_figure(results: Results) -> Figure | None:
    """Draw the Frobenius norms, a panel for each row and column, a line for each layer."""
    norms = norms_of(results)
    if norms.empty:
        return None
    groups = [mine for _, mine in norms.groupby("run", sort=False)]
    figure, grid = panel_grid(len(groups))
    look = styles(list(norms["layer"].unique()))
    for mine, axes in zip(groups, grid, strict=True):
        for layer, line in mine.groupby("layer", sort=False):
            style = look[str(layer)] | {"markersize": 4, "markevery": 0.12}
            axes.plot(line["step"], line["value"], **style, label=layer)
        axes.set(xlabel="step", ylabel="Frobenius norm of the covariance", yscale="log")
        row, column, seed = mine[["row", "column", "seed"]].iloc[0]
        axes.set_title(f"{row}, {column}, seed {seed}")
    legend_below(figure, "layer")
    return figure
