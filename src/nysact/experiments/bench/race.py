"""Optimizers that train copies of a model in turns, each step of each timed."""

import random
from collections.abc import Sequence

from nysact.experiments.bench.clock import Clock
from nysact.experiments.bench.contender import Contender
from nysact.experiments.bench.workload import Training, Workload
from nysact.experiments.timing import synchronize


class Race:
    """One model for each optimizer; they take turns, step by step.

    A slow moment of the machine slows all of them. The order is drawn anew for every round, since
    who goes first finds the batch not yet in the cache, and since a step depends on what the one
    before it left there.

    Args:
        workload: What is trained.
        contenders: The optimizers.
        clock: Times their steps.

    Attributes:
        trainings: By optimizer.
        rounds: Rounds done.
    """

    def __init__(self, workload: Workload, contenders: Sequence[Contender], clock: Clock) -> None:
        self.trainings = {}
        for contender in contenders:
            model = workload.build()
            self.trainings[contender.name] = Training(workload, model, contender.build(model))
        self.rounds = 0
        self._clock = clock
        self._order = random.Random(workload.seed)
        self._marks: dict[str, list[tuple[object, object]]] = {name: [] for name in self.trainings}

    def run(self, rounds: int) -> None:
        """Let every optimizer take some steps.

        Args:
            rounds: Their number.
        """
        for _ in range(rounds):
            names = list(self.trainings)
            self._order.shuffle(names)
            for name in names:
                self._step(name)
            self.rounds += 1

    def _step(self, name: str) -> None:
        # What the device still has to do for another would be counted here.
        synchronize(self._clock.device)
        start = self._clock.mark()
        self.trainings[name].step()
        self._marks[name].append((start, self._clock.mark()))

    def seconds(self, first: int = 0) -> dict[str, list[float]]:
        """Give the times of the steps.

        Args:
            first: Steps left out at the start.

        Returns:
            Seconds of each step by optimizer.
        """
        return {
            name: [self._clock.between(*pair) for pair in pairs[first:]]
            for name, pairs in self._marks.items()
        }

    def losses(self) -> dict[str, float]:
        """Give the loss that each optimizer has come to."""
        known = {name: of.loss for name, of in self.trainings.items()}
        return {name: float(loss) for name, loss in known.items() if loss is not None}
