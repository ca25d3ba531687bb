"""The command ``nysact reproduce``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nysact.experiments import options
from nysact.experiments.error_message import errors_shown

if TYPE_CHECKING:
    from nysact.experiments.config import Config
    from nysact.experiments.recipes import Recipe


def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Recipes, or files of one's own; table2 stands for all whose names begin so.",
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option(help="How many seeds, from 0 up.", show_default="the recipe's", min=1),
    ] = None,
    row: options.Row = None,
    column: options.Column = None,
    assign: options.Assign = None,
    jobs: options.Jobs = None,
    slurm: options.Slurm = None,
    runs: options.Runs = options.RUNS,
    output: options.Output = options.REPORT,
    track: options.Track = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    cpu: options.Cpu = False,
) -> None:
    """Run what is missing of a table or figure, having shown the plan, and report.

    Whatever stops it, the same command goes on where it was.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.sweeps.batch import Wishes, run_and_report
    from nysact.experiments.sweeps.places import executor_for

    with errors_shown():
        recipes = recipes_named(names)
        configs = runs_of(recipes, seeds, row or [], column or [], assign or [])
        executor = executor_for(configs, runs, jobs, slurm, track, cpu=cpu)
        wishes = Wishes(output, seeds, timed=not slurm, dry_run=dry_run, yes=yes, cpu=cpu)
        run_and_report(configs, recipes, executor, wishes)


def recipes_named(names: Sequence[str]) -> "list[Recipe]":
    """Load the recipes of the names: each itself, else all whose names it begins.

    Args:
        names: Names, beginnings of names, or files.

    Returns:
        The recipes.
    """
    from nysact.experiments.recipes import load
    from nysact.experiments.recipes import names as known

    found: list[str] = []
    for name in names:
        family = [other for other in known() if other.startswith(f"{name}-")]
        found += [name] if name in known() or not family else family
    return [load(name) for name in dict.fromkeys(found)]


def runs_of(
    recipes: "Sequence[Recipe]",
    seeds: int | None,
    rows: Sequence[str],
    columns: Sequence[str],
    overrides: Sequence[str],
) -> "list[Config]":
    """List the runs of recipes, those that several of them share once."""
    from nysact.experiments.recipes import find_runs
    from nysact.experiments.sweeps.outcome import without_twins

    numbers = [] if seeds is None else list(range(seeds))
    return without_twins(
        config
        for recipe in recipes
        if recipe.needs_runs
        for config in find_runs(recipe, rows, columns, numbers, overrides)
    )
