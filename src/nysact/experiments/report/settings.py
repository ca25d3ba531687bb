"""The settings of a recipe beside those of the paper: its tables 7 and 8."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd

from nysact.experiments.assignments import dotted
from nysact.experiments.formatting import number
from nysact.experiments.recipes import Recipe
from nysact.experiments.recipes.recipe_file import check_names
from nysact.experiments.report.table import Cell, Table

NOTE = "In square brackets: the paper's value; cells that differ from it say so."
# The paper's symbols, which leave room for the values.
SYMBOLS = {
    **{"stat_decay": "β₂", "damping": "ρ", "rank": "r"},
    **{"cov_interval": "τ_cov", "inv_interval": "τ_inv"},
}


def settings_table(recipe: Recipe | None) -> Table:
    """Show settings of each optimizer (kind ``settings``) or of the training of each column."""
    assert recipe is not None  # only recipes have this kind
    names, columns = recipe.report.names, recipe.columns
    places = list(product(recipe.rows, columns))
    settings = {at: dotted(recipe.config(*at, {}, 0).model_dump()) for at in places}
    known = dict.fromkeys(name for values in settings.values() for name in values)
    check_names(f"{recipe.name}: report.names: there is no setting", names, known)
    of_optimizers = recipe.report.kind == "settings"
    row_names, headings = (recipe.rows, names) if of_optimizers else (names, columns)
    cells = {}
    for heading in headings:
        for row in row_names:
            name = heading if of_optimizers else row
            places = [(row, c) for c in columns] if of_optimizers else [(recipe.rows[0], heading)]
            text = joined([settings[place].get(name) for place in places])
            cells[row, heading] = with_paper(text, recipe.paper.get(row, {}).get(heading, ""))
    frame = pd.Series(cells).unstack().reindex(index=row_names, columns=headings)
    frame = frame.rename(columns=symbol) if of_optimizers else frame.rename(index=symbol)
    frame = frame.rename_axis("optimizer" if of_optimizers else "setting")
    two = of_optimizers and len(columns) > 1
    values = [f"Two values in a cell: of {'; '.join(columns)}."] if two else []
    return Table(recipe.title, frame, [NOTE, *values])


def symbol(name: str) -> str:
    """Name a setting as the paper's table does, or by its own name."""
    last = name.removesuffix(".name").rpartition(".")[2]
    return SYMBOLS.get(last, last.replace("_", " "))


def joined(values: Sequence[Any]) -> str:
    """Write the values of a setting, one for each column where they differ; a dash for none."""
    texts = ["–" if value is None else number(value) for value in values]
    return " / ".join(texts) if len(set(texts)) > 1 else texts[0]


def with_paper(text: str, paper: str) -> Cell:
    """Write a cell with the paper's value, and whether it differs."""
    return Cell(text, note="differs" if paper and paper != text else "", paper=paper)
