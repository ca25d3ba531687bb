"""Which steps of an optimizer take statistics, and which refresh its factors."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Kind = Literal["plain", "statistics", "refresh"]
KINDS: tuple[Kind, ...] = ("plain", "statistics", "refresh")

# Settings that count the steps between costly ones; optimizers name them differently.
REFRESH_INTERVALS = ("inv_interval", "update_interval", "precondition_frequency")
STATISTICS_INTERVAL = "cov_interval"


@dataclass(frozen=True)
class Schedule:
    """Steps between statistics and between refreshes, 0 for never."""

    statistics: int
    refresh: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Read the schedule from an optimizer's settings."""
        refreshes = [settings[name] for name in REFRESH_INTERVALS if name in settings]
        return cls(settings.get(STATISTICS_INTERVAL, 0), *(refreshes or [0]))

    def kind(self, step: int) -> Kind:
        """Name the costliest thing that the step with this number (from 0) does."""
        if self.refresh and step % self.refresh == 0:
            return "refresh"
        return "statistics" if self.statistics and step % self.statistics == 0 else "plain"

    def counts(self) -> dict[Kind, int]:
        """Count the steps of each kind in a cycle."""
        kinds = [self.kind(step) for step in range(cycle([self]))]
        return {kind: kinds.count(kind) for kind in KINDS}


def cycle(schedules: Iterable[Schedule]) -> int:
    """Return the period of all schedules together: 1 where none has an interval."""
    return math.lcm(*(n or 1 for of in schedules for n in (of.statistics, of.refresh)))
