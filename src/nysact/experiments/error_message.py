"""How a command shows an error that the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from nysact.experiments.errors import ExperimentError


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an :class:`ExperimentError` of the body as one line, without its traceback.

    Yields:
        Nothing.

    Raises:
        Exit: After an error, with status 2.
    """
    try:
        yield
    except ExperimentError as error:
        Console(stderr=True).print(
            f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from error
