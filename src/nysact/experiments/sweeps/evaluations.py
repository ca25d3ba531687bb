"""The raw results of tuned optimizers: every evaluation of every run, a line each."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas

from nysact.experiments.run.store import StoredRun, failure_of, folder_of, load_run
from nysact.experiments.sweeps.tuning import RATE, Cell


def evaluations(cells: Sequence[Cell]) -> pandas.DataFrame:
    """Collect the evaluations of all runs that have ended."""
    return pandas.DataFrame(line for cell in cells for line in lines_of(cell))


def lines_of(cell: Cell) -> Iterator[dict[str, Any]]:
    """Describe each evaluation of the runs of an optimizer on a task."""
    for config in cell.plan()[0]:
        stored = load_run(folder_of(config, cell.root).path)
        facts = {
            "task": config.column,
            "optimizer": config.row,
            "learning_rate": config.sweep[RATE],
            "seed": config.seed,
            "part": "test" if config.seed in cell.seeds else "tuning",
            "failure": failure_of(stored),
            "run": stored.path.name,
        }
        yield from ({**facts, **values, **costs_of(stored)} for values in evaluated(stored))


def evaluated(stored: StoredRun) -> Iterator[dict[str, Any]]:
    """The metrics and seconds of each evaluation; a run that crashed early may have none."""
    if not stored.metrics:
        yield {}
    for metrics, timing in zip(stored.metrics, stored.timing, strict=True):
        yield {**metrics, "seconds": timing["seconds"]}


def costs_of(stored: StoredRun) -> dict[str, Any]:
    """The time of a step and the size of the optimizer's state."""
    timings = stored.timings or {}
    names = ("mean_step_seconds", "median_step_seconds", "optimizer_state_bytes", "peak_memory")
    return {name: timings[name] for name in names if name in timings}
