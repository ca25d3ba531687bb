"""The settings of a recipe as a table, beside those of the paper: its tables 7 and 8."""

from collections.abc import Mapping
from typing import Any

from nysact.experiments.baselines.registry import number
from nysact.experiments.recipes import Recipe
from nysact.experiments.recipes.recipe_file import check_names
from nysact.experiments.report.table import Cell, Table
from nysact.experiments.report.told_apart import flat

NOTE = "In square brackets: the paper's value; cells that differ from it say so."

# The paper's symbols, which leave room for the values.
SYMBOLS = {
    "stat_decay": "β₂",
    "damping": "ρ",
    "cov_interval": "τ_cov",
    "inv_interval": "τ_inv",
    "rank": "r",
}


def settings_table(recipe: Recipe) -> Table:
    """Make a table of settings, from the configurations of the runs.

    Args:
        recipe: A recipe that shows settings: of its optimizers, a row each, in which a setting
            that is not the same in all columns has several values; or of the training, where each
            setting is a row and the columns are the recipe's.

    Returns:
        The table.
    """
    names, columns = recipe.report.names, recipe.columns
    check_names(f"{recipe.name}: report.names: there is no setting", names, known(recipe))
    labels = [heading_of(name) for name in names]
    if recipe.report.kind == "settings":
        rows = [
            (row, [cell(joined(recipe, row, columns, name), recipe, row, name) for name in names])
            for row in recipe.rows
        ]
        return Table(recipe.title, ["optimizer", *labels], rows, notes(columns))
    first = recipe.rows[0]
    rows = [
        (label, [cell(joined(recipe, first, [c], name), recipe, name, c) for c in columns])
        for label, name in zip(labels, names, strict=True)
    ]
    return Table(recipe.title, ["setting", *columns], rows, [NOTE])


def heading_of(name: str) -> str:
    """Name a setting as the paper's table does, or by its own name."""
    last = name.removesuffix(".name").rpartition(".")[2]
    return SYMBOLS.get(last, last.replace("_", " "))


def known(recipe: Recipe) -> list[str]:
    """List the dotted names of all settings of a recipe."""
    configs = (recipe.config(r, c, {}, 0) for r in recipe.rows for c in recipe.columns)
    return list(dict.fromkeys(name for config in configs for name in flat(config.model_dump())))


def notes(columns: list[str]) -> list[str]:
    """Say which columns several values are of."""
    listed = "; ".join(columns)
    return [NOTE, *([f"Two values in a cell: of {listed}."] if len(columns) > 1 else [])]


def joined(recipe: Recipe, row: str, columns: list[str], name: str) -> str:
    """Write the value of a setting, one for each column where they differ."""
    values = [flat(recipe.config(row, column, {}, 0).model_dump()) for column in columns]
    texts = [written(one, name) for one in values]
    return " / ".join(texts) if len(set(texts)) > 1 else texts[0]


def written(values: Mapping[str, Any], name: str) -> str:
    """Write a setting short, a dash where there is none."""
    value = values.get(name)
    if value is None:
        return "–"
    return number(tuple(value) if isinstance(value, list) else value)


def cell(text: str, recipe: Recipe, row: str, column: str) -> Cell:
    """Write a cell, with the paper's value, and whether it differs."""
    paper = recipe.paper.get(row, {}).get(column, "")
    return Cell(text, note="differs" if paper and paper != text else "", paper=paper)
