"""The arguments and options that several commands share, each written once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from typer import Option

from nysact.experiments.errors import errors_shown

T = TypeVar("T")
RUNS = Path("runs")
REPORT = Path("report")

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's name, or your own file ending in .toml.")
]
Row = Annotated[list[str] | None, Option(help="Only this optimizer, by its row.")]
Column = Annotated[list[str] | None, Option(help="Only this column.")]
Assign = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Change a setting of every run."),
]
Output = Annotated[Path, Option(help="Folder for the report.")]
Cpu = Annotated[bool, Option("--cpu", help="Train on the CPU even if there is a GPU.")]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Which runs are trained, and where."""

    row: Row = None
    column: Column = None
    assign: Assign = None
    runs: Annotated[Path, Option(help="Folder of all runs.")] = RUNS
    track: Annotated[
        list[str] | None,
        Option(
            help="tensorboard, wandb, trackio or none.", show_default="tensorboard", metavar="WHERE"
        ),
    ] = None
    cpu: Cpu = False


@dataclass(frozen=True, kw_only=True)
class BatchOptions(TrainingOptions):
    """How many runs are trained in parallel and reported."""

    jobs: Annotated[
        int | None,
        Option(help="Runs at a time.", show_default="one a GPU, else by the cores", min=1),
    ] = None
    slurm: Annotated[
        list[str] | None,
        Option(metavar="NAME=VALUE", help="Run on SLURM, with this setting of submitit."),
    ] = None
    output: Output = REPORT
    dry_run: Annotated[bool, Option("--dry-run", help="Only show the plan.")] = False
    yes: Annotated[bool, Option("--yes", help="Start without asking.")] = False


def as_command(options: Callable[..., T], run: Callable[[T], None]) -> Callable[..., None]:
    """Make a typer command that has the fields of a dataclass for its options."""

    def command(**given: object) -> None:
        with errors_shown():
            run(options(**given))

    signature = inspect.signature(options)
    command.__doc__ = run.__doc__
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {of.name: of.annotation for of in signature.parameters.values()}
    return command
