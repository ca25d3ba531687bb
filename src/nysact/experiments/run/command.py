"""The command ``nysact train``."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nysact.experiments import options
from nysact.experiments.error_message import errors_shown
from nysact.experiments.errors import ExperimentError

if TYPE_CHECKING:
    from nysact.experiments.config import Config


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name, or a file of one's own ending in .toml.")
    ],
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
    """Train the runs of a recipe; those that are finished are left alone, others go on.

    A run that fails stops no other. Options that take one value can be given several times.

    Raises:
        Exit: With status 1 if a run failed.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.run.tracking import trackers_of

    with errors_shown():
        configs = find_runs(load(recipe), row or (), column or (), seed or (), assign or ())
        failures = train_all(configs, runs, trackers_of(track), cpu=cpu)
    if failures:
        raise typer.Exit(1)


def train_all(
    configs: "Sequence[Config]", runs: Path, trackers: Sequence[str], *, cpu: bool
) -> dict[str, str]:
    """Train runs one after the other.

    Args:
        configs: The runs.
        runs: The folder of all runs.
        trackers: What else to tell.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The runs that failed, with the reason.
    """
    import torch

    from nysact.experiments.run.display import display_for, title
    from nysact.experiments.run.runner import run

    console, failures = Console(), {}
    display = display_for(console)
    for config in configs:
        try:
            path = run(config, runs, display=display, trackers=trackers, cpu=cpu)
        except Exception as error:
            # The only run says all that there is to say; processes that share runs must not part.
            if len(configs) == 1 or torch.distributed.is_initialized():
                raise
            if not isinstance(error, ExperimentError):
                traceback.print_exc()
            failures[title(config)] = str(error) or type(error).__name__
        else:
            console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    for name, reason in failures.items():
        text = f"Failed: {name}: {reason}"
        Console(stderr=True).print(text, style="red", soft_wrap=True, markup=False, highlight=False)
    return failures
