"""The command ``nysact train``."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nysact.experiments.errors import ExperimentError, show_error
from nysact.experiments.options import RecipeName, TrainingOptions, as_command

if TYPE_CHECKING:
    from nysact.experiments.config import Config


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """What ``nysact train`` trains."""

    recipe: RecipeName
    seed: Annotated[
        list[int] | None, typer.Option(help="This seed.", show_default="the recipe's", min=0)
    ] = None


def run_train(options: TrainOptions) -> None:
    """Train the runs of a recipe; finished runs are skipped, and a failed run stops no other."""
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.files import check_writable
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.run.tracking import trackers_of

    recipe = load(options.recipe)
    configs = find_runs(recipe, options.row, options.column, options.seed, options.assign)
    trackers = trackers_of(options.track)
    check_writable(options.runs, "--runs")
    failed = train_all(configs, options.runs, trackers, cpu=options.cpu)
    for name, reason in failed.items():
        show_error(f"Failed: {name}: {reason}")
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
    return failures


train = as_command(TrainOptions, run_train)
