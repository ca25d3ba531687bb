"""Interleaved timing of training steps, and the times summed up."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nysact.experiments.bench.candidate import KINDS, Candidate, Kind
from nysact.experiments.bench.workload import Training, Workload
from nysact.experiments.clock import Clock
from nysact.experiments.devices import synchronize

Quartiles = tuple[float, float]


@dataclass(frozen=True)
class KindFigures:
    """Steps of one kind."""

    steps: int
    median: float  # seconds
    ratio: float  # median ratio to the reference's step of the same round
    quartiles: Quartiles  # of that ratio


@dataclass(frozen=True)
class Figures:
    """All steps of one optimizer."""

    steps: int
    mean: float  # seconds
    median: float
    p99: float  # interpolated
    tail: float  # p99 / median
    total: float  # ratio of the sums to the reference's
    windows: list[float]  # the same for each whole cycle
    window_median: float
    window_quartiles: Quartiles
    # Mean over a cycle of the median ratio of each step's kind; moments in which other programs
    # disturb the measurement hardly move it.
    composed: float
    kinds: dict[Kind, KindFigures]


def figures(seconds: pd.Series, reference: pd.Series, kinds: Sequence[Kind], cycle: int) -> Figures:
    """Sum up the times of one optimizer's steps, whole cycles of them, and their kinds."""
    if not len(seconds) or len(seconds) % cycle or len(seconds) != len(reference):
        raise ValueError(
            f"{len(seconds)} steps and {len(reference)} of the reference: expected equal numbers, "
            f"in whole cycles of {cycle}"
        )
    window = np.arange(len(seconds)) // cycle
    windows = seconds.groupby(window).sum() / reference.groupby(window).sum()
    steps = pd.DataFrame({"kind": list(kinds), "seconds": seconds, "ratio": seconds / reference})
    by_kind = {kind: kind_figures(of) for kind in KINDS if len(of := steps[steps.kind == kind])}
    median, p99 = seconds.median(), seconds.quantile(0.99)
    return Figures(
        steps=len(seconds),
        mean=float(seconds.mean()),
        median=float(median),
        p99=float(p99),
        tail=float(p99 / median),
        total=float(seconds.sum() / reference.sum()),
        windows=windows.tolist(),
        window_median=float(windows.median()),
        window_quartiles=quartiles(windows),
        composed=sum(of.steps * of.ratio for of in by_kind.values()) / len(seconds),
        kinds=by_kind,
    )


def kind_figures(steps: pd.DataFrame) -> KindFigures:
    """Sum up steps of one kind."""
    median, ratio = steps.seconds.median(), steps.ratio.median()
    return KindFigures(len(steps), float(median), float(ratio), quartiles(steps.ratio))


def quartiles(values: pd.Series) -> Quartiles:
    """Return the lower and the upper quartile, interpolated."""
    return float(values.quantile(0.25)), float(values.quantile(0.75))


class Interleaved:
    """One training for each candidate, one step of each a round, in a random order.

    A slow moment of the machine slows all of them. The order changes every round, since the first
    finds the batch not yet in the cache, and a step depends on what the one before it left there.
    """

    def __init__(self, workload: Workload, candidates: Sequence[Candidate], clock: Clock) -> None:
        self.trainings: dict[str, Training] = {}
        for candidate in candidates:
            model = workload.build()
            self.trainings[candidate.name] = Training(workload, model, candidate.build(model))
        self._clock = clock
        self._order = random.Random(workload.seed)
        self._marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in self.trainings}

    def run(self, rounds: int) -> None:
        """Let every optimizer take some steps."""
        for _ in range(rounds):
            for name in self.next_order():
                self._step(name)

    def next_order(self) -> list[str]:
        """Draw the order of a round."""
        return self._order.sample(list(self.trainings), len(self.trainings))

    def _step(self, name: str) -> None:
        # Otherwise the device's unfinished work for another optimizer would be counted here.
        synchronize(self._clock.device)
        start = self._clock.mark()
        self.trainings[name].step()
        self._marks[name].append((start, self._clock.mark()))

    def seconds(self) -> pd.DataFrame:
        """Return the time of each step: a row a round, a column an optimizer."""
        return pd.DataFrame(
            {
                name: [self._clock.between(*pair) for pair in pairs]
                for name, pairs in self._marks.items()
            }
        )

    def losses(self) -> dict[str, float]:
        """Return the last loss of each optimizer."""
        return {name: float(of.loss) for name, of in self.trainings.items() if of.loss is not None}
