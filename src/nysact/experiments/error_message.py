"""How a command shows an error that the user can fix: in one line, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from nysact.experiments.errors import ExperimentError


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an :class:`ExperimentError` of the body, and exit with status 2."""
    try:
        yield
    except ExperimentError as error:
        show_error(f"Error: {error}")
        raise typer.Exit(2) from error


def show_error(text: str) -> None:
    """Print a line to stderr."""
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
