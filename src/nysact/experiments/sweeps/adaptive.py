"""A search whose trials depend on the results so far, through Optuna.

The study lies in a database, which several processes, on several machines too, can share. A process
that searches holds a lock as long as it lives; a trial whose process holds none any more was
interrupted, and the next process to look takes it up again: its runs go on from their checkpoints.
"""

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from nysact.experiments.config import Config, Value
from nysact.experiments.metrics import Metric
from nysact.experiments.randomness import mixed
from nysact.experiments.run.failure import succeeded
from nysact.experiments.run.store import load_run
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.outcome import Outcome
from nysact.experiments.sweeps.space import Choice, Space

# What a trial's attributes call the process that runs it.
OWNER = "owner"


def distribution(space: Space) -> BaseDistribution:
    """Say what a setting is varied over in Optuna's terms."""
    if isinstance(space, Choice):
        return CategoricalDistribution(space.values)
    if space.whole:
        return IntDistribution(round(space.low), round(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


@dataclass
class Pending:
    """A trial whose runs are under way.

    Args:
        trial: The trial.
        runs: How many of its runs have not ended.
        values: What the metric was in those that have.
        failed: Whether the process of one of them failed.
    """

    trial: optuna.Trial
    runs: int
    values: list[float] = field(default_factory=list)
    failed: bool = False


class AdaptiveSearch:
    """Asks a study for trials, and tells it what came of them.

    Args:
        name: The study's name.
        storage: The database's address, ``None`` to keep the study in memory.
        spaces: For each setting its values or range.
        metric: What is judged; its last value, as the mean over the runs of a trial.
        runs_of: Makes the runs of a trial, one for each seed.
        trials: How many trials the study has in all.
        locks: A folder that all processes of the study see.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        name: str,
        storage: str | None,
        spaces: Mapping[str, Space],
        metric: Metric,
        runs_of: Callable[[dict[str, Value]], Sequence[Config]],
        trials: int,
        locks: Path,
        seed: int = 0,
    ) -> None:
        self.distributions = {key: distribution(space) for key, space in spaces.items()}
        self.metric = metric
        self.runs_of = runs_of
        self.trials = trials
        self.locks = locks
        self.seed = seed
        self.owner = uuid.uuid4().hex
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize" if metric.higher else "minimize",
            load_if_exists=True,
        )
        # By the name of each run that is under way, the trials that wait for it: two may be alike.
        self.pending: dict[str, list[Pending]] = {}

    def run(self, executor: Executor, on_outcome: Callable[[Outcome], None]) -> None:
        """Run trials until there are as many as wanted.

        Args:
            executor: Where they are run.
            on_outcome: Called with what came of each run.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self.locks / f"{self.owner}.lock"):
            # Each start draws anew: with the seed alone it would draw what an earlier one drew.
            starts = len(list(self.locks.glob("*.lock")))
            draws = mixed(self.seed, starts) % 2**32
            self.study.sampler = optuna.samplers.TPESampler(seed=draws)
            self.take_up_interrupted()
            for outcome in executor.execute(self.configs()):
                self.tell(outcome)
                on_outcome(outcome)

    def configs(self) -> Iterator[Config]:
        """Ask for trials as there is room for their runs, until there are as many as wanted.

        Yields:
            The runs of the trials.
        """
        while self.remaining() > 0:
            trial = self.study.ask(self.distributions)
            trial.set_user_attr(OWNER, self.owner)
            runs = self.runs_of(trial.params)
            pending = Pending(trial, len(runs))
            for run in runs:
                waiting = self.pending.setdefault(run.run_id(), [])
                waiting.append(pending)
                if len(waiting) == 1:
                    yield run

    def take_up_interrupted(self) -> None:
        """Queue the trials again whose processes are gone."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if self.is_alive(trial.user_attrs.get(OWNER, "")):
                continue
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.forget(trial)

    def is_alive(self, owner: str) -> bool:
        """Tell whether a process still holds its lock."""
        path = self.locks / f"{owner}.lock"
        if not path.is_file():
            return False
        try:
            with FileLock(path, timeout=0):
                return owner == self.owner
        except Timeout:
            return True

    def forget(self, trial: FrozenTrial) -> None:
        """Do not count a trial that was interrupted."""
        numbers = set(self.study.user_attrs.get("interrupted", []))
        self.study.set_user_attr("interrupted", sorted(numbers | {trial.number}))

    def remaining(self) -> int:
        """Count the trials that are still to be asked for; those that wait are."""
        interrupted = set(self.study.user_attrs.get("interrupted", []))
        asked = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.number not in interrupted and trial.state != TrialState.WAITING
        ]
        return self.trials - len(asked)

    def tell(self, outcome: Outcome) -> None:
        """Take note of a run that has ended, and tell the trials of which it was the last.

        A trial of which a run diverged is told as the worst there can be; one of which the
        process of a run failed, or which another process is at, is told as failed.

        Args:
            outcome: What came of the run.
        """
        for pending in self.pending.pop(outcome.config.run_id()):
            pending.runs -= 1
            if outcome.failure is None and not outcome.elsewhere:
                pending.values.append(self.value_of(outcome.path))
            else:
                pending.failed = True
            if pending.runs == 0 and pending.failed:
                self.study.tell(pending.trial, state=TrialState.FAIL)
            elif pending.runs == 0:
                self.study.tell(pending.trial, fmean(pending.values))

    def value_of(self, path: Path) -> float:
        """Read the metric of a finished run."""
        run = load_run(path)
        value = self.metric.final(run.metrics) if succeeded(run) else None
        worst = -math.inf if self.metric.higher else math.inf
        return worst if value is None else value

    def best(self) -> tuple[float, dict[str, Any]] | None:
        """Give the best value so far and its settings, ``None`` before the first."""
        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return (self.study.best_value, self.study.best_params) if done else None
