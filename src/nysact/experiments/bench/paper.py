"""Time and peak memory relative to SGD, as the paper reports them in its tables 3 and 6."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from nysact.experiments.recipes import recipe


class Ratio(NamedTuple):
    """Relative to SGD: time of training, and peak memory."""

    time: float
    memory: float


# Where the recipes hold the numbers: the table and column of a model, the row of an optimizer.
COLUMNS: Mapping[str, tuple[int, str]] = {
    "resnet32": (3, "ResNet-32, 100 epochs"),
    "resnet110": (3, "ResNet-110, 100 epochs"),
    "densenet121-cifar": (3, "DenseNet-121, 100 epochs"),
    "resnet50": (6, "ResNet-50, 100 epochs"),
    "deit-s": (6, "DeiT-S, 100 epochs"),
}
ROWS: Mapping[str, str] = {
    "kfac": "KFAC",
    "eva": "Eva",
    "foof": "FOOF",
    "nysact-gaussian": "NysAct-G",
    "nysact-columns": "NysAct-S",
}
# The line that a variant of NysAct stands beside.
NEAREST: Mapping[str, str] = {
    "nysact": "nysact-columns",
    "released-columns": "nysact-columns",
    "released-gaussian": "nysact-gaussian",
}


@cache
def lines(model: str) -> Mapping[str, Ratio]:
    """Return what the paper reports of a model, by optimizer."""
    if model not in COLUMNS:
        return {}
    table, column = COLUMNS[model]
    rows = recipe.load(f"table{table}").paper
    found = {name: rows.get(row, {}).get(column) for name, row in ROWS.items()}
    return {name: Ratio(*map(float, str(of).split(","))) for name, of in found.items() if of}


def reported(model: str, optimizer: str) -> Ratio | None:
    """Look up what the paper reports of an optimizer, or of the variant that it is nearest to."""
    return lines(model).get(NEAREST.get(optimizer, optimizer))
