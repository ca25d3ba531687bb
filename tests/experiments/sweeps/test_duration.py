"""Estimates of how long runs take."""

import os

import pytest
import torch

from nysact.experiments.data import small_images
from nysact.experiments.environment import device_name
from nysact.experiments.files import write_json
from nysact.experiments.run.store import folder_of
from nysact.experiments.sweeps.duration import START_SECONDS, estimate, time_one, timed
from nysact.experiments.sweeps.executor import Executor

from ..configs import config
from ..data.idx_files import write_fashion_mnist


def finish(config, root, *, took=0.0, trained=1.0, device=None):
    path = folder_of(config, root).path
    path.mkdir(parents=True)
    write_json(path / "config.json", config.model_dump())
    write_json(path / "environment.json", {"device_name": device or this_device()})
    write_json(path / "timing.json", {"training_seconds": trained})
    write_json(path / "result.json", {"steps": 8, "epochs": 2, "metrics": {}})
    os.utime(path / "config.json", (1000, 1000))
    os.utime(path / "result.json", (1000 + took, 1000 + took))


def seconds(configs, root, download=True):
    found = estimate(configs, Executor(root, cpu=True), download=download)
    return [found[each.run_id()] for each in configs]


def this_device():
    return device_name(torch.device("cpu"))


def test_runs_take_as_long_as_their_like_took(tmp_path):
    for seed, took in enumerate((100.0, 200.0, 120.0)):
        finish(config("sgd", seed=seed), tmp_path, took=took)
    wanted = [config("sgd", seed=9), config("sgd", seed=8, optimizer=with_rate(0.5))]
    assert seconds(wanted, tmp_path) == [120.0 + START_SECONDS] * 2


def with_rate(rate):
    return {"name": "sgd", "options": {"lr": rate}}


def test_a_run_that_was_stopped_in_between_took_its_steps_at_least(tmp_path):
    finish(config("sgd"), tmp_path, took=10.0, trained=300.0)
    assert seconds([config("sgd", seed=1)], tmp_path) == [300.0]


@pytest.mark.parametrize("other", ["longer", "another device"])
def test_other_runs_and_other_devices_say_nothing(tmp_path, timed_runs, other):
    changes = {"epochs": 3} if other == "longer" else {}
    device = "another" if other == "another device" else None
    finish(config("sgd", **changes), tmp_path, took=1e6, device=device)
    assert seconds([config("sgd", seed=1)], tmp_path) == [7.0]


def with_options(name, **options):
    return config(name, optimizer={"name": name, "options": options})


def test_options_that_cost_time_tell_runs_apart(tmp_path, timed_runs):
    steps = [with_options("nysact", inv_interval=steps) for steps in (5, 50)]
    rates = [with_options("nysact", lr=rate, damping=rate) for rate in (0.1, 0.2)]
    assert seconds([*steps, *rates], tmp_path) == [7.0] * 4
    assert sorted(c.optimizer.options["inv_interval"] for c in timed_runs) == [5, 50]


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_a_plan_alone_downloads_nothing(tmp_path, monkeypatch, timed_runs, capsys, name, download):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(small_images, "DEBIAN_FOLDER", tmp_path)
    here, away = config("sgd"), config("sgd", data={"name": name}, model={"name": "resnet20"})
    assert seconds([away, here], tmp_path, download) == [7.0 if download else 0.0, 7.0]
    assert timed_runs == ([away, here] if download else [here])
    reason = f"{name} is not here, and would be downloaded"
    assert (reason in capsys.readouterr().out) is not download


def test_data_that_is_here_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(small_images, "DEBIAN_FOLDER", tmp_path)
    data = config("sgd", data={"name": "fashion-mnist"}).data
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert small_images.would_be_downloaded(data)
    write_fashion_mnist(tmp_path)
    assert not small_images.would_be_downloaded(data)


def test_timing_stores_nothing_and_leaves_the_random_stream_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    assert time_one(config("nysact"), cpu=True) > START_SECONDS
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_runs_are_timed_in_another_process_and_a_bad_one_leaves_the_others():
    bad = config("sgd", data={"name": "fashion-mnist", "folder": "/nowhere"})
    first, second = timed([config("sgd"), bad], cpu=True)
    assert first > START_SECONDS
    assert "/nowhere" in second
