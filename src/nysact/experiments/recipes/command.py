"""The command ``nysact recipes``."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nysact.experiments import options
from nysact.experiments.errors import errors_shown


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe.", show_default="list all recipes")
    ] = None,
    row: options.Row = None,
    column: options.Column = None,
    assign: options.Assign = None,
) -> None:
    """List the recipes, or show one: its rows, columns and runs, and every setting of a run."""
    from nysact.experiments.recipes import find_runs, load

    with errors_shown():
        if name is None:
            list_all(Console())
            return
        recipe = load(name)
        configs = find_runs(recipe, row, column, overrides=assign)
    lines = [
        f"{recipe.name}: {recipe.title}",
        f"rows: {'; '.join(recipe.rows)}",
        f"columns: {'; '.join(recipe.columns)}",
        f"seeds: {', '.join(map(str, recipe.seeds))}; runs are stored under {recipe.source}",
        f"settings of {configs[0].row}, {configs[0].column} (one of {len(configs)} runs):",
        json.dumps(configs[0].model_dump(), indent=2, ensure_ascii=False),
    ]
    Console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def list_all(console: Console) -> None:
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
