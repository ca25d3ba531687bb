"""The commands of ``nysact``."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from nysact.experiments.bench.command import bench, growth
from nysact.experiments.demo.command import demo
from nysact.experiments.recipes.command import recipes
from nysact.experiments.report.command import report
from nysact.experiments.run.command import train
from nysact.experiments.sweeps.commands import reproduce, sweep
from nysact.experiments.sweeps.suite import suite


class Commands(TyperGroup):
    """Commands whose errors name the value that was given; typer's own leave it out."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                given = ", ".join(repr(each["input"]) for each in error.__cause__.errors())
                error.message = f"{given}: {error.message}"
            raise


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_show_locals=False)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "bench": bench,
    "growth": growth,
    "train": train,
    "recipes": recipes,
    "report": report,
    "reproduce": reproduce,
    "sweep": sweep,
    "suite": suite,
}
for name, function in COMMANDS.items():
    app.command(name)(function)


def print_version(wanted: bool) -> None:
    """Print the version and exit, if asked to."""
    if wanted:
        typer.echo(f"nysact {version('nysact')}")
        raise typer.Exit


@app.callback()
def nysact(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version),
    ] = False,
) -> None:
    """Experiments with the NysAct optimizer."""
