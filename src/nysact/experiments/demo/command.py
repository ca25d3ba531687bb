"""The command ``nysact demo``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nysact.experiments.error_message import errors_shown


def whole_number(value: str) -> int:
    """Read a whole number from 1 up.

    Args:
        value: What the user wrote.

    Returns:
        The number.

    Raises:
        BadParameter: If it is something else.
    """
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise typer.BadParameter(f"{value}: expected a whole number from 1 up")
    return number


def count(meaning: str, default: str | bool = "by data") -> Any:
    """Make an option that takes a whole number from 1 up."""
    return typer.Option(help=meaning, show_default=default, parser=whole_number, metavar="N")


def demo(
    data: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder with Fashion-MNIST's four IDX files, plain or .gz.",
            show_default="looked for, else downloaded",
        ),
    ] = None,
    train_size: Annotated[int | None, count("Training images used.")] = None,
    epochs: Annotated[int | None, count("Passes over them.")] = None,
    seeds: Annotated[int, count("Trainings of each optimizer.", default=True)] = 3,
    batch_size: Annotated[int | None, count("Images a batch.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("nysact-demo"),
    device: Annotated[
        str | None,
        typer.Option(help="Where to train.", show_default="an accelerator, else cpu"),
    ] = None,
) -> None:
    """Compare SGD, AdamW and NysAct on real data: a table, and a picture of the curves."""
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.demo.demo import DemoOptions, run_demo

    with errors_shown():
        options = DemoOptions(data, folder, train_size, epochs, seeds, batch_size, output, device)
        run_demo(options, Console())
