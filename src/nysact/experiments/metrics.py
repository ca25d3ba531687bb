"""The metrics that runs record: labels, units, whether higher is better, and targets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nysact.experiments.errors import ExperimentError

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Metric:
    """A number that a run records at each evaluation."""

    name: str  # its key in the records
    label: str  # its name in tables and figures
    unit: str = ""
    higher: bool = False  # whether higher is better
    digits: int = 4  # digits after the point in tables
    log: bool = False  # whether figures use a logarithmic axis

    @property
    def title(self) -> str:
        """The label with the unit, such as ``test accuracy (%)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """Write a value, such as ``72.00%``."""
        return f"{value:.{self.digits}f}" + ("%" if self.unit == "%" else "")

    def reaches(self, value: float, target: float) -> bool:
        """Whether a value is at least as good as a target."""
        return value >= target if self.higher else value <= target

    def final(self, records: Records) -> float | None:
        """Read the last value; ``None`` if it is missing or not finite."""
        values = [record[self.name] for record in records if self.name in record]
        return values[-1] if values else None

    def best(self, records: Records) -> float | None:
        """Read the best finite value."""
        found = [value for record in records if (value := record.get(self.name)) is not None]
        return (max if self.higher else min)(found, default=None)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("test_accuracy", "test accuracy", "%", higher=True, digits=2),
        Metric("validation_accuracy", "validation accuracy", "%", higher=True, digits=2),
        Metric("train_accuracy", "training accuracy", "%", higher=True, digits=2),
        Metric("train_loss", "training loss", "cross-entropy", log=True),
        Metric("test_loss", "test loss", "cross-entropy", log=True),
        Metric("validation_loss", "validation loss", "cross-entropy", log=True),
        Metric("test_squared_error", "test squared error", digits=3, log=True),
        Metric("test_l2_error", "relative L2 error", log=True),
        Metric("rollout_cost", "cost of rollouts, expert's = 1", digits=3, log=True),
        Metric("bits_per_byte", "bits per byte", "bit", digits=3),
    )
}


def metric_of(name: str) -> Metric:
    """Look a metric up; an unknown one is taken as a cost, lower being better."""
    return METRICS.get(name) or Metric(name, name.replace("_", " "))


SHARE = re.compile(r"(?P<share>[\d.]+)\s*%\s+of\s+(?P<row>.+)")


@dataclass(frozen=True)
class Target:
    """The quality that runs are to reach."""

    value: float | None = None  # None if it is relative to a reference
    share: float = 1.0  # share of the reference's best value; where lower is better, its divisor
    row: str = ""  # the reference


def parse_target(text: str) -> Target:
    """Read a target such as ``72`` or ``90% of SGD``."""
    share = SHARE.fullmatch(text.strip())
    try:
        if share:
            return Target(share=float(share["share"]) / 100, row=share["row"].strip())
        return Target(value=float(text))
    except ValueError as error:
        raise ExperimentError(
            f"target {text!r}: expected a number such as 72, or a share of a row's best value, "
            "such as '90% of SGD'"
        ) from error
