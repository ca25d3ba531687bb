"""Trains a run in a job: its output goes to a log, and its outcome to the submitting process."""

import logging
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError, RunningElsewhereError
from nysact.experiments.files import write_json, write_text
from nysact.experiments.run.display import LineDisplay
from nysact.experiments.run.failure import FAILURE
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import RunFolder

# The file in a run's folder that receives the output of its processes.
LOG = "log.txt"
# Begins the line of the log that precedes each attempt.
ATTEMPT = "=== started "


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, failed, or skipped because another process is running it."""

    config: Config
    path: Path
    failure: str | None = None
    elsewhere: bool = False


def folder_of(config: Config, root: Path) -> Path:
    """The folder of a run."""
    return root / config.recipe / config.run_id()


def is_finished(config: Config, root: Path) -> bool:
    """Whether a run has a result."""
    return RunFolder(folder_of(config, root)).finished


def start_attempt(path: Path) -> None:
    """Make a run's folder, forget an earlier failure, and mark the attempt in the log."""
    path.mkdir(parents=True, exist_ok=True)
    (path / FAILURE).unlink(missing_ok=True)
    with (path / LOG).open("a", encoding="utf-8") as log:
        log.write(f"{ATTEMPT}{datetime.now():%Y-%m-%d %H:%M:%S}\n")


def train_run(config: Config, root: Path, trackers: Sequence[str], cpu: bool) -> Outcome:
    """Train a run in a process of its own."""
    path = folder_of(config, root)
    send_output_to(path / LOG)
    try:
        run(config, root, display=LineDisplay(Console(width=200)), trackers=trackers, cpu=cpu)
        return Outcome(config, path)
    except RunningElsewhereError:
        return Outcome(config, path, elsewhere=True)
    except ExperimentError as error:
        print(f"Error: {error}")
    except Exception:
        traceback.print_exc()
    return failed(config, path, last_lines(path))


def send_output_to(path: Path) -> None:
    """Append to a file whatever this process prints from now on, native code included."""
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(number, 1)
    os.dup2(number, 2)
    logging.getLogger("submitit").setLevel(logging.WARNING)


def failed(config: Config, path: Path, lines: Sequence[str]) -> Outcome:
    """Record why a run failed, for reports."""
    if not (path / "config.json").is_file():
        write_json(path / "config.json", config.model_dump())
    reason = "\n".join(lines)
    write_text(path / FAILURE, reason + "\n")
    return Outcome(config, path, reason)


def last_lines(path: Path, count: int = 20) -> list[str]:
    """Read the last lines of the latest attempt in a run's log that are not blank."""
    text = (path / LOG).read_text("utf-8", errors="replace")
    lines = text.rpartition(ATTEMPT)[2].splitlines()[1:]
    return [line for line in lines if line.strip()][-count:]
