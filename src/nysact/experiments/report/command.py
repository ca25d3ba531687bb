"""The command ``nysact report``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nysact.experiments.errors import errors_shown
from nysact.experiments.options import REPORT, RUNS, Output

Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Folders of runs, or a suite.csv.", show_default=str(RUNS), metavar="FOLDER..."
    ),
]
Recipes = Annotated[
    list[str] | None,
    typer.Option(help="Only this recipe, or your own file.", show_default="all that were run"),
]
Goal = Annotated[
    str | None,
    typer.Option(help="Time to this quality: 72, or '90% of SGD'.", show_default="the recipe's"),
]


def report(
    runs: Folders = None,
    recipe: Recipes = None,
    target: Goal = None,
    output: Output = REPORT,
) -> None:
    """Make tables, figures and a page of stored runs."""
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.errors import ExperimentError
    from nysact.experiments.metrics import parse_target
    from nysact.experiments.recipes import load, names
    from nysact.experiments.report.report import sections_of, write_report
    from nysact.experiments.report.suite_report import read_results, write_suite
    from nysact.experiments.run.store import StoredRun, load_runs

    with errors_shown():
        if runs and runs[0].suffix == ".csv":
            write_suite(read_results(runs[0]), output, Console())
            return
        goal = None if target is None else parse_target(target)
        chosen = [load(name) for name in recipe or names()]
        # Recipes that show settings alone are shown where they are asked for.
        recipes = [one for one in chosen if recipe or one.needs_runs]
        found: list[StoredRun] = []
        if any(one.needs_runs for one in recipes):
            sources = {one.source for one in recipes}
            stored = [run for folder in runs or [RUNS] for run in load_runs(folder)]
            found = [run for run in stored if not recipe or run.config["recipe"] in sources]
            if not found:
                raise ExperimentError(
                    f"{', '.join(map(str, runs or [RUNS]))}: there are no runs"
                    f"{' of ' + ', '.join(recipe) if recipe else ''}; train some with nysact "
                    "train, or name other folders"
                )
        write_report(sections_of(found, recipes, goal), output, Console())
