"""What is shown while a comparison runs: a live display, or lines where there is no terminal."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from nysact.experiments.demo.comparison import Progress


class Display(Protocol):
    """Shows progress; a context manager around the training."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def on_step(self) -> None:
        """Note one round of steps."""

    def on_epoch(self, progress: Progress) -> None:
        """Show the state after an epoch."""


def display_for(console: Console, seeds: int, epochs: int, steps: int) -> Display:
    """Choose a display.

    Args:
        console: Where to show it.
        seeds: Number of seeds.
        epochs: Epochs of each seed.
        steps: Rounds of steps in all.

    Returns:
        A live display on a terminal, else one that prints lines.
    """
    if console.is_terminal:
        return LiveDisplay(console, seeds, epochs, steps)
    return LineDisplay(console, seeds, epochs)


class LineDisplay:
    """Prints a line after each epoch.

    Args:
        console: Where to print.
        seeds: Number of seeds.
        epochs: Epochs of each seed.
    """

    def __init__(self, console: Console, seeds: int, epochs: int) -> None:
        self.console = console
        self.seeds = seeds
        self.epochs = epochs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def on_step(self) -> None:
        """Do nothing: a line a step would be too many."""

    def on_epoch(self, progress: Progress) -> None:
        """Print the loss and accuracy of each run."""
        results = "; ".join(
            f"{run.name} loss {run.losses[-1]:.4f}, accuracy {run.accuracies[-1]:.2f}%"
            for run in progress.runs
        )
        self.console.print(
            f"{where(progress, self.seeds, self.epochs)}: {results}",
            soft_wrap=True,
            highlight=False,
        )


class LiveDisplay:
    """Shows a bar with the time left and the latest loss and accuracy of each optimizer.

    Args:
        console: The terminal.
        seeds: Number of seeds.
        epochs: Epochs of each seed.
        steps: Rounds of steps in all.
    """

    def __init__(self, console: Console, seeds: int, epochs: int, steps: int) -> None:
        self.seeds = seeds
        self.epochs = epochs
        self.bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self.task = self.bar.add_task("training", total=steps)
        # Twice a second: drawing takes time from the training.
        self.live = Live(self.bar, console=console, transient=True, refresh_per_second=2)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.stop()

    def on_step(self) -> None:
        """Move the bar."""
        self.bar.advance(self.task)

    def on_epoch(self, progress: Progress) -> None:
        """Show the loss and accuracy of each run."""
        table = Table(title=f"after {where(progress, self.seeds, self.epochs)}")
        table.add_column("optimizer")
        table.add_column("training loss", justify="right")
        table.add_column("test accuracy, %", justify="right")
        for run in progress.runs:
            table.add_row(run.name, f"{run.losses[-1]:.4f}", f"{run.accuracies[-1]:.2f}")
        self.live.update(Group(table, self.bar))


def where(progress: Progress, seeds: int, epochs: int) -> str:
    """Say how far the training is; seeds are numbered from 0 and shown from 1."""
    return f"seed {progress.seed + 1}/{seeds}, epoch {progress.epoch}/{epochs}"
