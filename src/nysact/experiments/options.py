"""The arguments and options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")
REPORT = Path("report")

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's name, or your own file ending in .toml.")
]
Row = Annotated[list[str] | None, typer.Option(help="Only this optimizer, by its row.")]
Column = Annotated[list[str] | None, typer.Option(help="Only this column.")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of every run."),
]
Jobs = Annotated[
    int | None,
    typer.Option(help="Runs at a time.", show_default="one a GPU, else by the cores", min=1),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Run on SLURM, with this setting of submitit."),
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
Output = Annotated[Path, typer.Option(help="Folder for the report.")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        help="tensorboard, wandb, trackio or none.", show_default="tensorboard", metavar="WHERE"
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")]
Yes = Annotated[bool, typer.Option("--yes", help="Start without asking.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Train on the CPU even if there is a GPU.")]
