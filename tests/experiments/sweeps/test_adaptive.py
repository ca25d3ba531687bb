"""The adaptive search: what it asks and tells, and how it resumes after an interruption."""

import threading

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from nysact.experiments.files import write_json, write_text
from nysact.experiments.metrics import metric_of
from nysact.experiments.run.store import folder_of
from nysact.experiments.sweeps import executor as executors
from nysact.experiments.sweeps.adaptive import AdaptiveSearch
from nysact.experiments.sweeps.executor import Executor, Outcome, failed
from nysact.experiments.sweeps.search import optuna_quiet, varied

from ..configs import config

LR = "optimizer.options.lr"
RATES = {LR: FloatDistribution(0.01, 1.0, log=True)}
STATES = optuna.trial.TrialState


class Written:
    """A run whose result is written at once: its accuracy is best at a learning rate of 0.1."""

    def __init__(self, config, root):
        self.config, self.path = config, folder_of(config, root).path

    def done(self):
        return True

    def outcome(self):
        rate = self.config.sweep[LR]
        self.path.mkdir(parents=True, exist_ok=True)
        if rate > 0.8:
            return failed(self.config, self.path, ["out of memory"])
        write_json(self.path / "config.json", self.config.model_dump())
        value = 90 - 10 * abs(rate - 0.1) + self.config.seed
        write_text(self.path / "metrics.jsonl", f'{{"step": 1, "test_accuracy": {value}}}\n')
        write_json(self.path / "timing.json", {})
        failure = {"failure": "diverged"} if rate > 0.6 else {}
        write_json(self.path / "result.json", {"steps": 1, **failure})
        return Outcome(self.config, self.path)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(executors, "LOCAL_POLL_SECONDS", 0)


class AtOnce(Executor):
    """Runs at once; Optuna, its heartbeats and the store are the real ones."""

    def __init__(self, root, jobs=2, stop_after=None):
        super().__init__(root, jobs)
        self.started = []
        self.stop_after = stop_after

    def start(self, config, slot, submit):
        if len(self.started) == self.stop_after:
            raise KeyboardInterrupt
        self.started.append(config)
        return Written(config, self.root)

    def outcome(self, config, job):
        return job.outcome()


def search(root, spaces=RATES, trials=12, seeds=(0,)):
    def runs_of(values):
        return [varied(config("sgd", seed=seed), "mine", values) for seed in seeds]

    metric = metric_of("test_accuracy")
    storage = f"sqlite:///{root / 'study.db'}"
    return AdaptiveSearch("mine", storage, spaces, metric, runs_of, trials, heartbeat_seconds=1)


def trials(found, *states):
    return [t for t in found.study.get_trials() if not states or t.state in states]


def test_trials_are_told_the_mean_of_their_runs(tmp_path):
    found = search(tmp_path, trials=6, seeds=(0, 1))
    executor = AtOnce(tmp_path)
    list(found.run(executor))
    assert len(executor.started) == 12
    for trial in trials(found, STATES.COMPLETE):
        rate = trial.params[LR]
        if rate <= 0.6:
            assert trial.value == pytest.approx(90.5 - 10 * abs(rate - 0.1))
    assert found.study.best_value == max(t.value for t in trials(found, STATES.COMPLETE))


def test_diverged_runs_are_the_worst_and_crashes_are_failures(tmp_path):
    spaces = {LR: CategoricalDistribution((0.1, 0.7, 0.9))}
    found = search(tmp_path, spaces, trials=20)
    outcomes = list(found.run(AtOnce(tmp_path)))
    by_rate = {trial.params[LR]: trial for trial in trials(found)}
    assert by_rate[0.7].value == float("-inf")
    assert by_rate[0.9].state == STATES.FAIL
    assert by_rate[0.1].value == 90.0
    assert (found.study.best_value, found.study.best_params) == (90.0, {LR: 0.1})
    assert {outcome.failure for outcome in outcomes} == {None, "out of memory"}


def test_a_run_that_another_process_is_at_is_no_bad_result(tmp_path):
    found = search(tmp_path)
    (run,) = (next(found.configs()),)
    found.end(Outcome(run, folder_of(run, tmp_path).path, elsewhere=True))
    assert [trial.state for trial in trials(found)] == [STATES.FAIL]


def test_each_start_draws_anew_and_the_same_starts_draw_the_same(tmp_path):
    found = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        executor = AtOnce(tmp_path / attempt)
        for trials in (2, 4):
            list(search(tmp_path / attempt, trials=trials).run(executor))
        found.append([config.sweep[LR] for config in executor.started])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_trials_that_are_alike_are_run_once(tmp_path):
    executor = AtOnce(tmp_path, jobs=4)
    found = search(tmp_path, {LR: CategoricalDistribution((0.1,))}, trials=5)
    list(found.run(executor))
    assert len(executor.started) == 1
    assert [trial.value for trial in trials(found, STATES.COMPLETE)] == [90.0] * 5


def test_an_interrupted_search_goes_on_with_the_trials_it_was_at(tmp_path):
    first = search(tmp_path)
    executor = AtOnce(tmp_path, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        list(first.run(executor))
    under_way = {trial.params[LR] for trial in trials(first, STATES.RUNNING)}
    assert under_way
    again = AtOnce(tmp_path)
    second = search(tmp_path)
    list(second.run(again))
    assert under_way <= {config.sweep[LR] for config in again.started} | {
        config.sweep[LR] for config in executor.started
    }
    assert second.remaining() == 0
    told = trials(second, STATES.COMPLETE, STATES.FAIL)
    retried = {n for t in trials(second) for n in t.system_attrs.get("retry_history", [])}
    assert len(told) - len(retried) == 12
    assert retried
    assert not trials(second, STATES.RUNNING)
    ended = {trial.params[LR] for trial in trials(second, STATES.COMPLETE)}
    assert {rate for rate in under_way if rate <= 0.8} <= ended


def test_trials_of_a_process_that_lives_are_left_to_it(tmp_path):
    other = search(tmp_path)
    with optuna_quiet():
        trial = other.study.ask(other.spaces)
    ended = threading.Event()

    def live():
        while not ended.wait(0.3):
            other.storage.record_heartbeat(trial._trial_id)

    other.storage.record_heartbeat(trial._trial_id)
    life = threading.Thread(target=live)
    life.start()
    try:
        found = search(tmp_path, trials=3)
        list(found.run(AtOnce(tmp_path)))
        assert [t.number for t in trials(found, STATES.RUNNING)] == [trial.number]
        assert len(trials(found)) == 3
    finally:
        ended.set()
        life.join()
    after = search(tmp_path, trials=3)
    executor = AtOnce(tmp_path)
    list(after.run(executor))
    assert trial.params[LR] in {config.sweep[LR] for config in executor.started}
    assert not trials(after, STATES.RUNNING)
    assert after.remaining() == 0
