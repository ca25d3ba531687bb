"""Which steps of an optimizer cost what."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["plain", "statistics", "refresh"]
KINDS: tuple[Kind, ...] = ("plain", "statistics", "refresh")

# Settings that count steps between costly ones, by whatever name an optimizer has for it.
REFRESH_INTERVALS = ("inv_interval", "update_interval", "precondition_frequency")
STATISTICS_INTERVAL = "cov_interval"


@dataclass(frozen=True)
class Schedule:
    """When an optimizer takes statistics and when it computes new factors.

    Args:
        statistics: Steps between statistics, 0 for never.
        refresh: Steps between refreshes, 0 for never.
    """

    statistics: int
    refresh: int

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Schedule":
        """Read the schedule from an optimizer's settings."""
        refreshes = [settings[name] for name in REFRESH_INTERVALS if name in settings]
        return cls(settings.get(STATISTICS_INTERVAL, 0), *(refreshes or [0]))

    def kind(self, step: int) -> Kind:
        """Tell the kind of a step.

        Args:
            step: Steps done before.

        Returns:
            The costliest thing that it does.
        """
        if self.refresh and step % self.refresh == 0:
            return "refresh"
        return "statistics" if self.statistics and step % self.statistics == 0 else "plain"

    def counts(self) -> dict[Kind, int]:
        """Count the steps of each kind in a cycle."""
        kinds = [self.kind(step) for step in range(max(self.refresh, self.statistics, 1))]
        return {kind: kinds.count(kind) for kind in KINDS}


def cycle(schedules: Iterable[Schedule]) -> int:
    """Give the steps after which all schedules have come round: 1 where none has an interval."""
    return math.lcm(*(n or 1 for of in schedules for n in (of.statistics, of.refresh)))
