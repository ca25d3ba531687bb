"""Estimates of how long runs take."""

import os

import pytest
import torch

from nysact.experiments.run.environment import device_name
from nysact.experiments.run.store import load_runs, write_json
from nysact.experiments.sweeps.estimate import START_SECONDS, estimate, in_words, trial
from nysact.experiments.sweeps.outcome import folder_of

from ..configs import config


def finish(config, root, *, took=0.0, trained=1.0, device=None):
    path = folder_of(config, root)
    path.mkdir(parents=True)
    write_json(path / "config.json", config.model_dump())
    write_json(path / "environment.json", {"device_name": device or this_device()})
    write_json(path / "timing.json", {"training_seconds": trained})
    write_json(path / "result.json", {"steps": 8, "epochs": 2, "metrics": {}})
    os.utime(path / "config.json", (1000, 1000))
    os.utime(path / "result.json", (1000 + took, 1000 + took))


def this_device():
    return device_name(torch.device("cpu"))


def test_runs_take_as_long_as_their_like_took(tmp_path):
    for seed, took in enumerate((100.0, 200.0, 120.0)):
        finish(config("sgd", seed=seed), tmp_path, took=took)
    wanted = [config("sgd", seed=9), config("sgd", seed=8, optimizer=with_rate(0.5))]
    assert estimate(wanted, load_runs(tmp_path), cpu=True) == [120.0 + START_SECONDS] * 2


def with_rate(rate):
    return {"name": "sgd", "options": {"lr": rate}}


def test_a_run_that_was_stopped_in_between_took_its_steps_at_least(tmp_path):
    finish(config("sgd"), tmp_path, took=10.0, trained=300.0)
    assert estimate([config("sgd", seed=1)], load_runs(tmp_path), cpu=True) == [300.0]


@pytest.mark.parametrize("other", ["longer", "another device"])
def test_other_runs_and_other_devices_say_nothing(tmp_path, other):
    changes = {"epochs": 3} if other == "longer" else {}
    device = "another" if other == "another device" else None
    finish(config("sgd", **changes), tmp_path, took=1e6, device=device)
    (seconds,) = estimate([config("sgd", seed=1)], load_runs(tmp_path), cpu=True)
    assert seconds < 1e5


def test_a_trial_stores_nothing_and_leaves_the_random_stream_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    assert trial(config("nysact"), cpu=True) > START_SECONDS
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (61, "2 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
