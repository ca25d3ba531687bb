"""How soon a run reaches a target: a value, or a share of what a reference row reaches."""

from dataclasses import dataclass

from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import Results, best
from nysact.experiments.run.store import StoredRun
from nysact.experiments.target import Target


def value_in(target: Target, results: Results, column: str, metric: Metric) -> float | None:
    """Work a target out for a column; ``None`` if the reference has no finished run there."""
    if target.value is not None:
        return target.value
    sample = results.group(target.row, column).sample(lambda run: best(run, metric))
    if not sample.values:
        return None
    return sample.mean * target.share if metric.higher else sample.mean / target.share


@dataclass(frozen=True)
class Reached:
    """When a run first reached a target.

    Args:
        steps: Steps by then.
        epochs: Passes over the training set by then.
        seconds: Seconds of training by then, ``None`` if the run has no timing there.
    """

    steps: int
    epochs: float
    seconds: float | None


def reached(run: StoredRun, metric: Metric, target: float) -> Reached | None:
    """Find the first evaluation at which a run is at least as good as a target.

    Args:
        run: The run.
        metric: The metric.
        target: Its value.

    Returns:
        When that was, or ``None`` if it never was.
    """
    seconds = {record["step"]: record["seconds"] for record in run.timing}
    for record in run.metrics:
        value = record.get(metric.name)
        if value is not None and (value >= target if metric.higher else value <= target):
            return Reached(record["step"], record["epoch"], seconds.get(record["step"]))
    return None
