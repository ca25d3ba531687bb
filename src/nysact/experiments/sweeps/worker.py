"""Runs one configuration in a process of its own: ``python -m nysact.experiments.sweeps.worker``.

The configuration comes as a line of JSON on the standard input, which then stays open: it ends
with the process that started this one, whatever ends that, and this one ends with it. So no run
is left behind that a later start would meet.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from nysact.experiments.errors import ExperimentError, RunningElsewhereError

# Exit statuses: of a run that cannot be run, of one whose starter is gone, and of one that another
# process is at.
REFUSED = 2
ORPHANED = 3
ELSEWHERE = 4


def end_with(stream: int) -> None:
    """End this process when the other end of a pipe is closed.

    Args:
        stream: The number of the pipe's file.
    """
    while os.read(stream, 4096):
        pass
    os._exit(ORPHANED)


def first_line() -> str:
    """Read the line that the starter has written, and end with the starter from then on."""
    line = sys.stdin.readline()
    threading.Thread(target=end_with, args=[sys.stdin.fileno()], daemon=True).start()
    return line


def run_line(line: str, root: Path, trackers: Sequence[str] = (), *, cpu: bool) -> None:
    """Run a configuration, showing how it goes in lines.

    Args:
        line: The configuration as JSON.
        root: The folder of all runs.
        trackers: What else to tell.
        cpu: Whether to train on the CPU in any case.
    """
    # Imported here: it takes seconds, in which the starter may already be gone.
    from rich.console import Console

    from nysact.experiments.config import Config
    from nysact.experiments.run.display import LineDisplay
    from nysact.experiments.run.runner import run

    config = Config.checked(json.loads(line))
    run(config, root, display=LineDisplay(Console(width=200)), trackers=trackers, cpu=cpu)


def main(arguments: list[str] | None = None) -> None:
    """Run the configuration that the standard input has.

    Args:
        arguments: Those of the command line, ``None`` for this process's.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder of all runs")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU in any case")
    parser.add_argument("--track", action="append", default=[], help="a tracker to tell")
    parsed = parser.parse_args(arguments)
    try:
        run_line(first_line(), parsed.root, parsed.track, cpu=parsed.cpu)
    except RunningElsewhereError as error:
        print(error)
        sys.exit(ELSEWHERE)
    except ExperimentError as error:
        print(f"Error: {error}")
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
