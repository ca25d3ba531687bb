"""The command ``nysact recipes``."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nysact.experiments.error_message import errors_shown


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe.", show_default="list all recipes")
    ] = None,
    row: Annotated[str | None, typer.Option(help="Show the settings of this row.")] = None,
    column: Annotated[str | None, typer.Option(help="Show the settings of this column.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting as in train."),
    ] = None,
) -> None:
    """List the recipes, or show one: its rows, columns and runs, and every setting of a run."""
    with errors_shown():
        if name is None:
            show_all(Console())
        else:
            show(name, row, column, assign or [], Console())


def show_all(console: Console) -> None:
    """List the recipes with the number of their runs."""
    from nysact.experiments.recipes import load, names

    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "runs", "what it is"):
        table.add_column(heading, justify="right" if heading == "runs" else "left")
    for name in names():
        recipe = load(name)
        runs = str(len(recipe.runs())) if recipe.source == name else f"of {recipe.source}"
        table.add_row(name, runs, recipe.title)
    console.print(table)


def show(
    name: str, row: str | None, column: str | None, overrides: list[str], console: Console
) -> None:
    """Show a recipe, and all settings of one of its runs.

    Args:
        name: The recipe.
        row: The row of the run, ``None`` for the first.
        column: The column of the run, ``None`` for the first.
        overrides: Assignments.
        console: Where to show it.
    """
    from nysact.experiments.recipes import find_runs, load

    recipe = load(name)
    configs = list(
        find_runs(recipe, [row] if row else (), [column] if column else (), overrides=overrides)
    )
    seeds = ", ".join(map(str, recipe.seeds))
    for line in (
        f"{name}: {recipe.title}",
        f"rows: {'; '.join(recipe.rows)}",
        f"columns: {'; '.join(recipe.columns)}",
        f"seeds: {seeds}; runs: {len(configs)}, stored under {recipe.source}",
        f"settings of {configs[0].row}, {configs[0].column}:",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(json.dumps(configs[0].model_dump(), indent=2, ensure_ascii=False), markup=False)
