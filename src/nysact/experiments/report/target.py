"""How soon a run reaches a target: a value, or a share of what a reference row reaches."""

import re
from dataclasses import dataclass

from nysact.experiments.errors import ExperimentError
from nysact.experiments.report.metrics import Metric
from nysact.experiments.report.results import Results, best
from nysact.experiments.run.store import StoredRun

SHARE = re.compile(r"(?P<share>[\d.]+)\s*%\s+of\s+(?P<row>.+)")


@dataclass(frozen=True)
class Target:
    """What a run is to reach.

    Args:
        value: The value itself, or ``None`` if it is relative.
        share: The share of the reference's best value, averaged over its seeds; where less is
            better, the value divided by it.
        row: The reference.
    """

    value: float | None = None
    share: float = 1.0
    row: str = ""

    def value_in(self, results: Results, column: str, metric: Metric) -> float | None:
        """Work the target out for a column.

        Args:
            results: The runs.
            column: The column.
            metric: The metric.

        Returns:
            The value, or ``None`` if the reference has no finished run there.
        """
        if self.value is not None:
            return self.value
        sample = results.group(self.row, column).sample(lambda run: best(run, metric))
        if not sample.values:
            return None
        return sample.mean * self.share if metric.higher else sample.mean / self.share


def parse_target(text: str) -> Target:
    """Read a target.

    Args:
        text: A number such as ``72``, or a share such as ``90% of SGD``.

    Returns:
        The target.

    Raises:
        ExperimentError: If it is neither.
    """
    share = SHARE.fullmatch(text.strip())
    try:
        if share:
            return Target(share=float(share["share"]) / 100, row=share["row"].strip())
        return Target(value=float(text))
    except ValueError as error:
        raise ExperimentError(
            f"target {text!r}: expected a number such as 72, or a share of the best value of a "
            "row, such as '90% of SGD'"
        ) from error


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
