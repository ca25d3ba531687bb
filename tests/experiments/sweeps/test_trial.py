"""Timing a few steps, in a process of its own."""

import pytest
import torch

from nysact.experiments.errors import ExperimentError
from nysact.experiments.sweeps import trial as trials
from nysact.experiments.sweeps.trial import (
    ANSWER,
    PERIOD,
    START_SECONDS,
    answer,
    answers,
    refreshing_often,
    timed,
    trial,
)

from ..configs import config


def test_a_trial_stores_nothing_and_leaves_the_random_stream_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    assert trial(config("nysact"), cpu=True) > START_SECONDS
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


def with_intervals(name, **options):
    length = {"epochs": None, "steps": 1000}
    return config(name, optimizer={"name": name, "options": options}, **length)


def test_rare_refreshes_come_often_enough_in_a_trial():
    often, share = refreshing_often(with_intervals("nysact", inv_interval=50))
    assert often.optimizer.options["inv_interval"] == 10
    assert share == 0.2
    often, share = refreshing_often(with_intervals("foof", cov_interval=4, inv_interval=100))
    assert often.optimizer.options["inv_interval"] == 8
    assert share == 0.08
    for each in (with_intervals("nysact", inv_interval=PERIOD), config("sgd")):
        assert refreshing_often(each) == (None, 1.0)


def test_the_cost_of_refreshes_counts_by_how_often_they_come(monkeypatch):
    """A step takes 1 second, and one with a refresh 101 seconds."""

    def seconds_a_step(training):
        inputs, targets = next(training.batches())
        training.step(inputs, targets)
        interval = training.config.optimizer.options["inv_interval"]
        return 1.0 + (100.0 / interval if interval <= PERIOD else 0.0)

    monkeypatch.setattr(trials, "seconds_a_step", seconds_a_step)
    for interval, step in ((10, 11.0), (50, 3.0), (500, 1.2)):
        seconds = trial(with_intervals("nysact", inv_interval=interval), cpu=True)
        # The evaluations take their time too.
        assert seconds - START_SECONDS == pytest.approx(1000 * step, abs=100)


def test_runs_are_timed_in_another_process():
    found = timed([config("sgd"), config("nysact", seed=1)], cpu=True)
    assert [isinstance(seconds, float) for seconds in found] == [True, True]
    assert min(found) > START_SECONDS


def test_a_run_that_cannot_be_run_is_an_error():
    bad = config("sgd", data={"name": "fashion-mnist", "folder": "/nowhere"})
    found = answer(bad, cpu=True)
    with pytest.raises(ExperimentError, match="/nowhere"):
        answers([f'{ANSWER}{{"error": "{found["error"]}"}}'], 1)


def test_a_failure_or_crash_of_a_trial_leaves_the_other_times(monkeypatch):
    def no_memory(config, *, cpu):
        raise torch.OutOfMemoryError("out of\nmemory")

    monkeypatch.setattr(trials, "trial", no_memory)
    failure = {"failure": "OutOfMemoryError: out of memory"}
    assert answer(config("sgd"), cpu=True) == failure
    lines = ["noise", f'{ANSWER}{{"seconds": 3.0}}', f'{ANSWER}{{"failure": "why"}}', "Killed", ""]
    assert answers(lines, 3) == [3.0, "why", "the process that timed it ended: Killed"]
