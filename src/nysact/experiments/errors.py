"""The error that a user of the experiments can fix, and how a command shows it in one line."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


class ExperimentError(Exception):
    """A bad option or bad data; the message names the value, what was expected, and a remedy."""


class RunningElsewhereError(ExperimentError):
    """Another process holds the same run."""


def unknown(name: str, names: Iterable[str]) -> str:
    """Write that a name is unknown, which is the nearest, and which there are."""
    names = list(names)
    folded = {other.lower(): other for other in names}
    nearest = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.0)
    hint = f"the nearest is {folded[nearest[0]]!r}; " if nearest else ""
    return f"{name!r}: {hint}expected one of {', '.join(names)}"


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
