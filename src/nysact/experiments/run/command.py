"""The command ``nysact train``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nysact.experiments.error_message import errors_shown

RUNS = Path("runs")


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name, or a file of one's own ending in .toml.")
    ],
    row: Annotated[list[str] | None, typer.Option(help="Only this optimizer, by its row.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column.")] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="This seed.", show_default="the recipe's", min=0)
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of every run."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = RUNS,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard, wandb, trackio or none.", show_default="tensorboard", metavar="WHERE"
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU in any case.")] = False,
) -> None:
    """Train the runs of a recipe; those that are finished are left alone, others go on.

    Options that take one value can be given several times.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.run.display import display_for
    from nysact.experiments.run.runner import run

    trackers = [name for name in track or ["tensorboard"] if name != "none"]
    with errors_shown():
        configs = find_runs(load(recipe), row or (), column or (), seed or (), assign or ())
        display = display_for(Console())
        for config in configs:
            path = run(config, runs, display=display, trackers=trackers, cpu=cpu)
            Console().print(str(path), soft_wrap=True, highlight=False, markup=False)
