"""What came of a run that another process ran."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nysact.experiments.config import Config
from nysact.experiments.files import write_json, write_text
from nysact.experiments.run.failure import FAILURE
from nysact.experiments.run.store import RunFolder

# The file in a run's folder that holds what its process printed.
LOG = "log.txt"
# Lines of the log that say why a run failed.
LAST_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        config: Its configuration.
        path: Its folder.
        failure: Why its process failed, ``None`` if it did not.
        elsewhere: Whether it was left to another process, which is at it.
    """

    config: Config
    path: Path
    failure: str | None = None
    elsewhere: bool = False


def folder_of(config: Config, root: Path) -> Path:
    """Name the folder of a run."""
    return root / config.recipe / config.run_id()


def is_finished(config: Config, root: Path) -> bool:
    """Tell whether a run has a result."""
    return RunFolder(folder_of(config, root)).finished


def start_folder(config: Config, root: Path) -> Path:
    """Make a run's folder, forgetting that the run failed before.

    Args:
        config: The run.
        root: The folder of all runs.

    Returns:
        The run's folder.
    """
    path = folder_of(config, root)
    path.mkdir(parents=True, exist_ok=True)
    (path / FAILURE).unlink(missing_ok=True)
    return path


def failed(config: Config, path: Path, reason: str) -> Outcome:
    """Write down that a run failed.

    Args:
        config: The run.
        path: Its folder.
        reason: Why.

    Returns:
        The outcome.
    """
    if not (path / "config.json").is_file():
        write_json(path / "config.json", config.model_dump())
    write_text(path / FAILURE, reason + "\n")
    return Outcome(config, path, reason)


def last_lines(path: Path, start: int = 0, count: int = LAST_LINES) -> list[str]:
    """Read the last lines of a log that are not blank.

    Args:
        path: The log, which may not exist.
        start: The byte at which to begin.
        count: How many lines at most.

    Returns:
        The lines.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()][-count:]


def without_twins(configs: Iterable[Config]) -> list[Config]:
    """Leave out configurations that are the same run as an earlier one."""
    return list({(config.recipe, config.run_id()): config for config in configs}.values())
