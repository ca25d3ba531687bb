"""The protocol by which a learning rate is tuned and then judged: see docs/suite.md."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from nysact.experiments.config import Config
from nysact.experiments.metrics import metric_of
from nysact.experiments.run.store import folder_of, load_run, succeeded

RATE = "optimizer.options.lr"
# What a rate is chosen by: the first of these that the runs have.
JUDGED = ("validation_accuracy", "validation_loss")


@dataclass(frozen=True)
class Tuning:
    """Which learning rates are tried, and how the best is judged.

    Args:
        factor: Between neighbouring rates of the grid around the optimizer's own rate.
        rates: Number of rates in the grid.
        extensions: Up to so many further rates are tried beyond an end of the grid, one at a time,
            while the best rate lies there; 0 gives every optimizer exactly as many trials.
        refinement: At last the best rate times and divided by this is tried; ``None`` for neither.
        seed: Of the runs that choose the rate, by the validation set.
    """

    factor: float = 3.0
    rates: int = 4
    extensions: int = 8
    refinement: float | None = 1.7
    seed: int = 0

    @property
    def trials(self) -> int:
        """The number of rates that are tried without extensions."""
        return self.rates + 2 * (self.refinement is not None)

    def next_rates(self, start: float, costs: Mapping[float, float]) -> list[float]:
        """The rates to be tried next, given the costs of those that were; none at the end."""
        low, high = -(self.rates // 2), (self.rates - 1) // 2
        for _ in range(self.extensions + 1):
            grid = [rounded(start * self.factor**power) for power in range(low, high + 1)]
            if new := [rate for rate in grid if rate not in costs]:
                return new
            best = cheapest({rate: costs[rate] for rate in grid})
            # Where every rate fails, lower ones may not.
            if best == grid[0] or costs[best] == math.inf:
                low -= 1
            elif best == grid[-1]:
                high += 1
            else:
                break
        if self.refinement is None or costs[best] == math.inf:
            return []
        near = [rounded(best * factor) for factor in (1 / self.refinement, self.refinement)]
        return [rate for rate in near if rate not in costs]


def rounded(rate: float) -> float:
    """Write a rate with three digits, so that it has one name."""
    return float(f"{rate:.3g}")


def cheapest(costs: Mapping[float, float]) -> float:
    """The rate of the lowest cost; of equal ones the lowest rate."""
    return min(costs, key=lambda rate: (costs[rate], rate))


@dataclass(frozen=True, eq=False)
class Cell:
    """An optimizer on a task, whose runs follow from the stored ones alone."""

    base: Config  # its optimizer has the rate in the middle of the grid
    tuning: Tuning
    seeds: Sequence[int]  # of the runs that judge the best rate, by the test set
    root: Path  # of all runs

    def run_at(self, rate: float, seed: int) -> Config:
        """The run with a rate and a seed."""
        config = self.base.override([f"{RATE}={rate}"])
        return config.model_copy(update={"sweep": {RATE: rate}, "seed": seed})

    def plan(self, given_up: Set[str] = frozenset()) -> tuple[list[Config], list[Config]]:
        """The runs that have ended, with or without (``given_up``) a result, and those to come."""
        ended: list[Config] = []
        costs: dict[float, float] = {}
        while rates := self.tuning.next_rates(float(self.base.optimizer.options["lr"]), costs):
            runs = [self.run_at(rate, self.tuning.seed) for rate in rates]
            if missing := self._missing(runs, given_up):
                return [*ended, *(run for run in runs if run not in missing)], missing
            costs |= {rate: self._cost(run) for rate, run in zip(rates, runs, strict=True)}
            ended += runs
        judged = [self.run_at(cheapest(costs), seed) for seed in self.seeds]
        missing = self._missing(judged, given_up)
        return [*ended, *(run for run in judged if run not in missing)], missing

    def judged(self) -> list[Config]:
        """The runs at the best rate, when all have ended."""
        return self.plan()[0][-len(self.seeds) :]

    def left(self, given_up: Set[str] = frozenset()) -> int:
        """The number of runs that are still to come if the grid is not extended."""
        ended, missing = self.plan(given_up)
        expected = self.tuning.trials + len(self.seeds) - len(ended)
        return max(len(missing), expected) if missing else 0

    def _missing(self, runs: list[Config], given_up: Set[str]) -> list[Config]:
        """Those of some runs that have not ended."""
        rest = [run for run in runs if run.run_id() not in given_up]
        return [run for run in rest if not folder_of(run, self.root).finished]

    def _cost(self, run: Config) -> float:
        """What a rate is judged by, the less the better; infinite for a run that failed."""
        folder = folder_of(run, self.root)
        if not folder.finished:
            return math.inf
        stored = load_run(folder.path)
        found = {metric: metric.final(stored.metrics) for metric in map(metric_of, JUDGED)}
        values = [-v if m.higher else v for m, v in found.items() if v is not None]
        return values[0] if values and succeeded(stored) else math.inf
