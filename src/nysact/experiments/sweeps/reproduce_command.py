"""The command ``nysact reproduce``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nysact.experiments.error_message import errors_shown

if TYPE_CHECKING:
    from nysact.experiments.config import Config
    from nysact.experiments.recipes import Recipe
    from nysact.experiments.sweeps.executor import Executor

RUNS = Path("runs")


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
    row: Annotated[list[str] | None, typer.Option(help="Only this optimizer.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of every run."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at a time.", show_default="one a GPU, else by the cores", min=1),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Run on SLURM, with this setting of submitit."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = RUNS,
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU in any case.")] = False,
) -> None:
    """Run what is missing of a table or figure, having shown the plan, and report.

    Whatever stops it, the same command goes on where it was.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.sweeps.places import executor_for

    with errors_shown():
        recipes = recipes_named(names)
        configs = runs_of(recipes, seeds, row or [], column or [], assign or [])
        executor = executor_for(configs, runs, jobs, slurm or [], cpu=cpu)
        run_and_report(
            configs, recipes, executor, output,
            timed=not slurm, dry_run=dry_run, yes=yes, cpu=cpu,
        )  # fmt: skip


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
        for config in find_runs(recipe, rows, columns, numbers, overrides)
    )


def run_and_report(
    configs: "Sequence[Config]",
    recipes: "Sequence[Recipe]",
    executor: "Executor",
    output: Path,
    *,
    timed: bool,
    dry_run: bool,
    yes: bool,
    cpu: bool,
) -> None:
    """Show the plan, run what is missing, and report.

    Args:
        configs: The runs.
        recipes: What they are shown as.
        executor: Where they are run.
        output: The report's folder.
        timed: Whether to estimate the time.
        dry_run: Whether to show the plan alone.
        yes: Whether to start without asking.
        cpu: Whether to train on the CPU where there is an accelerator.

    Raises:
        Exit: With status 1 if a run failed, or the user does not want to start.
    """
    from nysact.experiments.report.report import sections_of, write_report
    from nysact.experiments.run.store import load_run
    from nysact.experiments.sweeps.batch import make_plan, run_plan, show_failures, show_plan
    from nysact.experiments.sweeps.outcome import folder_of

    console = Console()
    if timed:
        console.print("Estimating the time, by a few steps where no run is known ...")
    plan = make_plan(configs, executor.root, executor.jobs, cpu=cpu, timed=timed)
    show_plan(plan, console)
    if dry_run:
        return
    if plan.missing and not (yes or agreed()):
        raise typer.Exit(1)
    failures = run_plan(plan, executor, console)
    stored = [load_run(folder_of(config, executor.root)) for config in configs]
    write_report(sections_of(stored, recipes), output, console)
    show_failures(failures, console)
    if failures:
        raise typer.Exit(1)


def agreed() -> bool:
    """Ask whether to start.

    Returns:
        The answer.

    Raises:
        ExperimentError: If there is nobody to ask.
    """
    from nysact.experiments.errors import ExperimentError

    if not sys.stdin.isatty():
        raise ExperimentError("there is no terminal to ask on: add --yes to start, or --dry-run")
    return typer.confirm("Start?", default=True)
