"""Interleaved timing: optimizers train copies of a model in turns, and each step is timed."""

import random
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nysact.experiments.bench.candidate import Candidate
from nysact.experiments.bench.workload import Training, Workload
from nysact.experiments.clock import Clock
from nysact.experiments.devices import synchronize


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
