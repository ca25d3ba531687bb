"""A search by Optuna whose trials depend on the results so far.

The study is stored in a database that several processes and machines can share. A process that
searches records a heartbeat for each of its trials. A trial without one is queued again, and its
runs resume from their checkpoints.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import optuna
import typer
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from rich.console import Console

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.formatting import duration
from nysact.experiments.metrics import METRICS, Metric, metric_of
from nysact.experiments.options import BatchOptions
from nysact.experiments.randomness import mixed
from nysact.experiments.report.report import sections_of, write_report
from nysact.experiments.run.store import load_run, load_runs, succeeded
from nysact.experiments.sweeps.batch import conclude, is_agreed, outcome_line
from nysact.experiments.sweeps.duration import estimate
from nysact.experiments.sweeps.executor import Executor, Outcome, executor_for
from nysact.experiments.sweeps.search import Spaces, Trial, optuna_quiet

HEARTBEAT_SECONDS = 20


class AdaptiveSearch:
    """Asks a study for trials, trains their runs, and tells it the mean of the metric."""

    def __init__(
        self,
        name: str,
        database: str | None,  # its address; None keeps the study in memory
        spaces: Spaces,
        metric: Metric,
        runs_of: Callable[[Trial], Sequence[Config]],
        trials: int,  # of the study in all
        seed: int = 0,
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
    ) -> None:
        self.spaces, self.metric, self.runs_of = dict(spaces), metric, runs_of
        self.trials, self.seed = trials, seed
        self.heartbeat_seconds, self.next_heartbeat = heartbeat_seconds, 0.0
        with optuna_quiet():
            self.storage = database and RDBStorage(
                database,
                heartbeat_interval=heartbeat_seconds,
                grace_period=3 * heartbeat_seconds,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
            self.study = optuna.create_study(
                study_name=name,
                storage=self.storage,
                direction="maximize" if metric.higher else "minimize",
                load_if_exists=True,
            )
        # The trials under way with the ids of their runs, some of which two trials may share.
        self.pending: list[tuple[optuna.Trial, list[str]]] = []
        # The metric of each run that was started, None while it has none.
        self.values: dict[str, float | None] = {}
        self.ended: set[str] = set()

    def run(self, executor: Executor) -> Iterator[Outcome]:
        """Run trials until there are as many as wanted, and yield how each run ended."""
        # Each start draws new values: with the seed alone it would repeat those of the first.
        seed = mixed(self.seed, len(self.study.get_trials(deepcopy=False))) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        while self.remaining() > 0 or self.trial_returns():
            for outcome in executor.execute(self.configs(), self.record_heartbeats):
                self.end(outcome)
                yield outcome

    def configs(self) -> Iterator[Config]:
        """Ask for trials as there is room for their runs."""
        while self.remaining() > 0:
            with optuna_quiet():
                trial = self.study.ask(self.spaces)
            runs = {run.run_id(): run for run in self.runs_of(trial.params)}
            self.pending.append((trial, list(runs)))
            self.next_heartbeat = 0.0
            self.record_heartbeats()
            new = [run for run in runs if run not in self.values]
            self.values |= dict.fromkeys(new)
            yield from (runs[run] for run in new)
            self.tell()

    def remaining(self) -> int:
        """Count the trials still to be asked for; those of killed processes are queued again."""
        with optuna_quiet():
            optuna.storages.fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        retried = {
            number for trial in trials for number in trial.system_attrs.get("retry_history", [])
        }
        asked = [t for t in trials if t.state != TrialState.WAITING and t.number not in retried]
        return self.trials - len(asked)

    def trial_returns(self) -> bool:
        """Wait while others run trials, until one is queued again or all are surely alive."""
        deadline = time.monotonic() + 4 * self.heartbeat_seconds
        running = [TrialState.RUNNING]
        while self.study.get_trials(False, running) and time.monotonic() < deadline:
            time.sleep(0.5)
            if self.remaining() > 0:
                return True
        return False

    def record_heartbeats(self) -> None:
        """Tell other processes now and then that this one is alive."""
        if self.storage and time.monotonic() >= self.next_heartbeat:
            self.next_heartbeat = time.monotonic() + self.heartbeat_seconds
            for trial, _ in self.pending:
                self.storage.record_heartbeat(trial._trial_id)

    def end(self, outcome: Outcome) -> None:
        """Note how a run ended: a diverged one has the worst value, a crashed one has none."""
        if outcome.failure is None and not outcome.elsewhere:
            self.values[outcome.config.run_id()] = self.value_of(outcome.path)
        self.ended.add(outcome.config.run_id())
        self.tell()

    def tell(self) -> None:
        """Tell the study of the trials all of whose runs have ended."""
        done = [each for each in self.pending if self.ended.issuperset(each[1])]
        self.pending = [each for each in self.pending if each not in done]
        for trial, runs in done:
            values = [value for run in runs if (value := self.values[run]) is not None]
            complete = len(values) == len(runs)
            self.study.tell(
                trial,
                fmean(values) if complete else None,
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                skip_if_finished=True,  # if another process gave this one up for dead
            )

    def value_of(self, path: Path) -> float:
        """Read the metric of a finished run."""
        run = load_run(path)
        value = self.metric.final(run.metrics) if succeeded(run) else None
        worst = -math.inf if self.metric.higher else math.inf
        return worst if value is None else value


def checked_metric(name: str, configs: Sequence[Config]) -> Metric:
    """Find the metric, and make sure that the runs of a trial have one value of it."""
    if name not in METRICS:
        raise ExperimentError(f"--metric {unknown(name, METRICS)}")
    held_out = all(getattr(config.data, "validation_size", 0) for config in configs)
    if name.startswith("validation_") and not held_out:
        remedy = "add --set data.validation_size=N, such as 1000"
        raise ExperimentError(f"{name}: no training samples are held out; {remedy}")
    places = sorted({(config.row, config.column) for config in configs})
    if len(places) > 1:
        listed = "; ".join(f"--row '{row}' --column '{column}'" for row, column in places)
        raise ExperimentError(
            f"an adaptive search judges one row and one column: choose one of {listed}"
        )
    return metric_of(name)


def search_and_report(
    search: AdaptiveSearch, sample: Sequence[Config], options: BatchOptions
) -> None:
    """Run the trials that are left, and report on all; ``sample`` has the runs of one."""
    executor = executor_for(sample, options)
    left = max(0, search.remaining())
    each = estimate(sample if left else [], executor, download=not options.dry_run)
    seconds = left * sum(each.values()) / executor.jobs
    about = f"about {duration(seconds)}, " * (seconds > 0)
    typer.echo(f"{left} of {search.trials} trials are left: {about}{executor.jobs} runs at a time.")
    if not is_agreed(left, options):
        return
    outcomes = []
    for outcome in search.run(executor):
        typer.echo(outcome_line(outcome))
        outcomes.append(outcome)
    stored = load_runs(executor.root / sample[0].recipe)
    write_report(sections_of(stored, []), options.output, Console())
    if search.study.get_trials(False, [TrialState.COMPLETE]):
        best = search.study.best_trial
        values = ", ".join(f"{name}={value}" for name, value in best.params.items())
        typer.echo(
            f"Best: {search.metric.label} {search.metric.text(best.values[0])} with {values}"
        )
    conclude(outcomes)
