"""The adaptive search: what it asks and tells, and how it goes on after an interruption."""

import subprocess
import sys

import optuna
import pytest
from filelock import FileLock

from nysact.experiments.metrics import metric_of
from nysact.experiments.run.store import write_json, write_text
from nysact.experiments.sweeps.adaptive import AdaptiveSearch
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.outcome import Outcome, failed, folder_of
from nysact.experiments.sweeps.space import Choice, Range, varied

from ..configs import config

LR = "optimizer.options.lr"
RATES = {LR: Range(0.01, 1.0, log=True, whole=False)}
STATES = optuna.trial.TrialState


class Written:
    """A run whose result is written at once: its accuracy is best at a learning rate of 0.1."""

    def __init__(self, config, root):
        self.config, self.path = config, folder_of(config, root)

    def done(self):
        return True

    def outcome(self):
        rate = self.config.sweep[LR]
        self.path.mkdir(parents=True, exist_ok=True)
        if rate > 0.8:
            return failed(self.config, self.path, "out of memory")
        write_json(self.path / "config.json", self.config.model_dump())
        value = 90 - 10 * abs(rate - 0.1) + self.config.seed
        write_text(self.path / "metrics.jsonl", f'{{"step": 1, "test_accuracy": {value}}}\n')
        write_json(self.path / "timing.json", {})
        failure = {"failure": "diverged"} if rate > 0.6 else {}
        write_json(self.path / "result.json", {"steps": 1, **failure})
        return Outcome(self.config, self.path)

    def stop(self):
        pass


class AtOnce(Executor):
    """Runs at once; Optuna, the locks and the store are the real ones."""

    def __init__(self, root, jobs=2, stop_after=None):
        super().__init__(root, jobs, poll_seconds=0)
        self.started = []
        self.stop_after = stop_after

    def start(self, config, slot):
        if len(self.started) == self.stop_after:
            raise KeyboardInterrupt
        self.started.append(config)
        return Written(config, self.root)


def search(root, spaces=RATES, trials=12, seeds=(0,)):
    def runs_of(values):
        return [varied(config("sgd", seed=seed), "mine", values) for seed in seeds]

    metric = metric_of("test_accuracy")
    storage = f"sqlite:///{root / 'study.db'}"
    return AdaptiveSearch("mine", storage, spaces, metric, runs_of, trials, root / "locks")


def trials(found, *states):
    return [t for t in found.study.get_trials() if not states or t.state in states]


def test_trials_are_told_the_mean_of_their_runs(tmp_path):
    found = search(tmp_path, trials=6, seeds=(0, 1))
    executor = AtOnce(tmp_path)
    found.run(executor, lambda outcome: None)
    assert len(executor.started) == 12
    for trial in trials(found, STATES.COMPLETE):
        rate = trial.params[LR]
        if rate <= 0.6:
            assert trial.value == pytest.approx(90.5 - 10 * abs(rate - 0.1))
    value, params = found.best()
    assert value == max(t.value for t in trials(found, STATES.COMPLETE))
    assert set(params) == {LR}


def test_diverged_runs_are_the_worst_and_crashes_are_failures(tmp_path):
    spaces = {LR: Choice((0.1, 0.7, 0.9))}
    found = search(tmp_path, spaces, trials=20)
    outcomes = []
    found.run(AtOnce(tmp_path), outcomes.append)
    by_rate = {trial.params[LR]: trial for trial in trials(found)}
    assert by_rate[0.7].value == float("-inf")
    assert by_rate[0.9].state == STATES.FAIL
    assert by_rate[0.1].value == 90.0
    assert found.best() == (90.0, {LR: 0.1})


def test_a_run_that_another_process_is_at_is_no_bad_result(tmp_path):
    found = search(tmp_path)
    (run,) = (next(found.configs()),)
    found.tell(Outcome(run, folder_of(run, tmp_path), elsewhere=True))
    assert [trial.state for trial in trials(found)] == [STATES.FAIL]


def test_each_start_draws_anew_and_the_same_starts_draw_the_same(tmp_path):
    found = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        executor = AtOnce(tmp_path / attempt)
        for trials in (2, 4):
            search(tmp_path / attempt, trials=trials).run(executor, lambda outcome: None)
        found.append([config.sweep[LR] for config in executor.started])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_trials_that_are_alike_are_run_once(tmp_path):
    executor = AtOnce(tmp_path, jobs=4)
    found = search(tmp_path, {LR: Choice((0.1,))}, trials=5)
    found.run(executor, lambda outcome: None)
    assert len(executor.started) == 1
    assert [trial.value for trial in trials(found, STATES.COMPLETE)] == [90.0] * 5


def test_an_interrupted_search_goes_on_with_the_trials_it_was_at(tmp_path):
    first = search(tmp_path)
    executor = AtOnce(tmp_path, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        first.run(executor, lambda outcome: None)
    under_way = {trial.params[LR] for trial in trials(first, STATES.RUNNING)}
    assert under_way
    again = AtOnce(tmp_path)
    second = search(tmp_path)
    second.run(again, lambda outcome: None)
    assert under_way <= {config.sweep[LR] for config in again.started} | {
        config.sweep[LR] for config in executor.started
    }
    assert second.remaining() == 0
    told = trials(second, STATES.COMPLETE, STATES.FAIL)
    assert len(told) - len(second.study.user_attrs["interrupted"]) == 12
    assert not trials(second, STATES.RUNNING)
    ended = {trial.params[LR] for trial in trials(second, STATES.COMPLETE)}
    assert {rate for rate in under_way if rate <= 0.8} <= ended


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_trials_of_a_process_that_lives_are_left_to_it(tmp_path):
    other = search(tmp_path)
    trial = other.study.ask(other.distributions)
    trial.set_user_attr("owner", other.owner)
    other.locks.mkdir()
    lock = other.locks / f"{other.owner}.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        found = search(tmp_path, trials=3)
        found.run(AtOnce(tmp_path), lambda outcome: None)
        assert [t.number for t in trials(found, STATES.RUNNING)] == [trial.number]
        assert len(trials(found)) == 3
        holder.kill()
    after = search(tmp_path, trials=3)
    after.run(AtOnce(tmp_path), lambda outcome: None)
    assert not trials(after, STATES.RUNNING)
    assert after.remaining() == 0
    with FileLock(lock, timeout=0):
        pass
