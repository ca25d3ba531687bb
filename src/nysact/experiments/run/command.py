"""The command ``nysact train``."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nysact.experiments import options
from nysact.experiments.error_message import errors_shown, show_error
from nysact.experiments.errors import ExperimentError

if TYPE_CHECKING:
    from nysact.experiments.config import Config


def train(
    recipe: options.RecipeName,
    row: options.Row = None,
    column: options.Column = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="This seed.", show_default="the recipe's", min=0)
    ] = None,
    assign: options.Assign = None,
    runs: options.Runs = options.RUNS,
    track: options.Track = None,
    cpu: options.Cpu = False,
) -> None:
    """Train the runs of a recipe; finished runs are skipped, and a failed run stops no other."""
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.files import check_writable
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.run.tracking import trackers_of

    with errors_shown():
        configs = find_runs(load(recipe), row or (), column or (), seed or (), assign or ())
        trackers = trackers_of(track)
        check_writable(runs, "--runs")
        failed = train_all(configs, runs, trackers, cpu=cpu)
    if failed:
        raise typer.Exit(1)


def train_all(
    configs: "Sequence[Config]", runs: Path, trackers: Sequence[str], *, cpu: bool
) -> dict[str, str]:
    """Train runs one after the other; give the reasons of those that failed."""
    import torch

    from nysact.experiments.run.display import display_for, title
    from nysact.experiments.run.runner import run

    display, failures = display_for(Console()), {}
    for config in configs:
        try:
            run(config, runs, display=display, trackers=trackers, cpu=cpu)
        except Exception as error:
            # The error of a single run needs no list; processes that share runs must not part.
            if len(configs) == 1 or torch.distributed.is_initialized():
                raise
            if not isinstance(error, ExperimentError):
                traceback.print_exc()
            failures[title(config)] = str(error) or type(error).__name__
    for name, reason in failures.items():
        show_error(f"Failed: {name}: {reason}")
    return failures
