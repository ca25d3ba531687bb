"""Estimates of how long runs take."""

import json
import os

import pytest
import torch

from nysact.experiments.data import presence
from nysact.experiments.environment import device_name
from nysact.experiments.run.store import load_runs, write_json
from nysact.experiments.sweeps import estimate as estimating
from nysact.experiments.sweeps.estimate import estimate, in_words
from nysact.experiments.sweeps.outcome import folder_of
from nysact.experiments.sweeps.trial import START_SECONDS

from ..configs import config
from ..data.idx_files import write_fashion_mnist


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
def test_other_runs_and_other_devices_say_nothing(tmp_path, asked, other):
    changes = {"epochs": 3} if other == "longer" else {}
    device = "another" if other == "another device" else None
    finish(config("sgd", **changes), tmp_path, took=1e6, device=device)
    assert estimate([config("sgd", seed=1)], load_runs(tmp_path), cpu=True) == [7.0]


@pytest.fixture
def asked(monkeypatch):
    """The runs that were to be timed, each of which takes 7 seconds."""
    found = []

    def timed(configs, *, cpu):
        found.extend(configs)
        return [7.0] * len(configs)

    monkeypatch.setattr(estimating, "timed", timed)
    return found


def with_options(name, **options):
    return config(name, optimizer={"name": name, "options": options})


def test_options_that_cost_time_tell_runs_apart(asked):
    steps = [with_options("nysact", inv_interval=steps) for steps in (5, 50)]
    rates = [with_options("nysact", lr=rate, damping=rate) for rate in (0.1, 0.2)]
    assert estimate([*steps, *rates], [], cpu=True) == [7.0] * 4
    assert sorted(c.optimizer.options["inv_interval"] for c in asked) == [5, 50]


def test_runs_of_an_earlier_version_are_alike_where_they_have_the_defaults(tmp_path, asked):
    finish(config("sgd"), tmp_path, took=100.0)
    path = folder_of(config("sgd"), tmp_path) / "config.json"
    values = json.loads(path.read_text())
    del values["precision"], values["record"]
    path.write_text(json.dumps(values))
    os.utime(path, (1000, 1000))
    stored = load_runs(tmp_path)
    assert estimate([config("sgd", seed=1)], stored, cpu=True) == [100.0 + START_SECONDS]
    assert asked == []


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_a_plan_alone_downloads_nothing(tmp_path, monkeypatch, asked, name, download):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(presence, "DEBIAN_FOLDER", tmp_path)
    here, away = config("sgd"), config("sgd", data={"name": name}, model={"name": "resnet20"})
    reasons = []
    seconds = estimate(
        [away, here], [], cpu=True, download=download,
        on_unknown=lambda config, reason: reasons.append((config, reason)),
    )  # fmt: skip
    assert seconds == [7.0 if download else 0.0, 7.0]
    assert asked == ([away, here] if download else [here])
    if not download:
        assert reasons == [(away, f"{name} is not here, and would be downloaded")]


def test_data_that_is_here_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "DEBIAN_FOLDER", tmp_path)
    data = config("sgd", data={"name": "fashion-mnist"}).data
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert presence.would_be_downloaded(data)
    write_fashion_mnist(tmp_path)
    assert not presence.would_be_downloaded(data)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (61, "2 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
