"""What is shown while a run trains: a bar on a terminal, lines where there is none."""

import time
from collections.abc import Mapping
from typing import Any

from rich import progress
from rich.console import Console
from torch import Tensor

from nysact.experiments.config import Config
from nysact.experiments.metrics import METRICS

# Reading a loss from an accelerator makes the host wait, so it is done twice a second at most.
REFRESH_SECONDS = 0.5
# Without a terminal, a long epoch shows a line now and then.
LINE_SECONDS = 60.0
SILENT = Console(quiet=True)


def display_for(console: Console) -> "Display":
    """Choose a live display on a terminal, else one that prints lines."""
    return LiveDisplay(console) if console.is_terminal else Display(console)


class Display:
    """Prints a line at each evaluation, and one a minute between them; nothing by default."""

    console = SILENT

    def __init__(self, console: Console = SILENT) -> None:
        self.console = console

    def on_reuse(self, config: Config, message: str) -> None:
        """Print a line."""
        self.line(f"{title(config)}: {message}")

    def start(self, config: Config, steps: int, done: int) -> None:
        """Print the run's name."""
        self.steps, self.first, self.started = steps, done, time.monotonic()
        self.line(f"{title(config)}: {steps} steps" + (f", going on after {done}" if done else ""))

    def on_step(self, step: int, loss: Tensor) -> None:
        """Print the loss if the last line is a while ago."""
        if time.monotonic() - self.last_line >= LINE_SECONDS:
            self.line(f"  step {step}/{self.steps}, loss {float(loss):.4f}, {self.left(step)}")

    def on_evaluation(self, metrics: Mapping[str, Any]) -> None:
        """Print the metrics."""
        step, epoch = metrics["step"], f"epoch {metrics['epoch']:.4g}"
        shown = ", ".join([f"step {step}/{self.steps}", epoch, *describe(metrics)])
        self.line(f"  {shown}, {self.left(step)}")

    def stop(self, message: str) -> None:
        """Print how it ended."""
        self.line(f"  {message}")

    def left(self, step: int) -> str:
        """Estimate the time left."""
        done = max(1, step - self.first)
        seconds = (time.monotonic() - self.started) / done * (self.steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes}:{seconds:02d} left"

    def line(self, text: str) -> None:
        """Print a line that stays, and remember when."""
        self.last_line = time.monotonic()
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


class LiveDisplay(Display):
    """Shows a bar with the latest loss, the latest evaluation and the time left."""

    def start(self, config: Config, steps: int, done: int) -> None:
        """Start the bar."""
        self.title, self.evaluation, self.last_refresh = title(config), "", 0.0
        self.bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[loss]}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=self.console,
            transient=True,
            refresh_per_second=2,
        )
        self.task = self.bar.add_task(self.title, total=steps, completed=done, loss="")
        self.bar.start()

    def on_step(self, step: int, loss: Tensor) -> None:
        """Move the bar now and then."""
        if time.monotonic() - self.last_refresh >= REFRESH_SECONDS:
            text = f"loss {float(loss):.4f} {self.evaluation}"
            self.bar.update(self.task, completed=step, loss=text)
            self.last_refresh = time.monotonic()

    def on_evaluation(self, metrics: Mapping[str, Any]) -> None:
        """Show the metrics beside the bar."""
        self.evaluation = f"({', '.join(describe(metrics, losses=False))})"

    def stop(self, message: str) -> None:
        """End the bar and leave a line."""
        self.bar.stop()
        self.line(f"{self.title}: {message}")


def title(config: Config) -> str:
    """Name a run in words."""
    varied = [f"{name.rpartition('.')[2]} {value}" for name, value in config.sweep.items()]
    return ", ".join([config.row, config.column, *varied, f"seed {config.seed}"])


def describe(metrics: Mapping[str, Any], *, losses: bool = True) -> list[str]:
    """Write the metrics of an evaluation, such as ``test accuracy 90.12%``."""
    known = [METRICS[name] for name in metrics if name in METRICS and metrics[name] is not None]
    shown = [metric for metric in known if losses or "loss" not in metric.name]
    return [f"{metric.label} {metric.text(metrics[metric.name])}" for metric in shown]
