"""``nysact train`` and ``nysact recipes``, as a user types them."""

import json

import pytest
import torch
from typer.testing import CliRunner

from nysact.experiments import recipes
from nysact.experiments.commands import app
from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes import names
from nysact.experiments.run.store import load_runs
from nysact.experiments.run.training import Training

RECIPE = """
title = "Digits"
seeds = [0, 1]
[run]
model = { name = "digits" }
data = { name = "digits", train_size = 64, test_size = 50 }
batch_size = 16
epochs = 1
threads = 1
[columns.digits]
[rows.SGD]
optimizer = { name = "sgd" }
[rows.NysAct]
optimizer = { name = "nysact" }
"""


@pytest.fixture
def nysact(tmp_path, monkeypatch):
    (tmp_path / "digits.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "80"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, arguments)


def test_train_runs_what_is_asked_for_and_not_twice(nysact, tmp_path):
    options = ("train", "digits.toml", "--row", "NysAct", "--seed", "7", "--track", "none")
    result = nysact(*options)
    assert result.exit_code == 0, result.output
    (found,) = load_runs(tmp_path / "runs")
    assert (found.config["row"], found.config["seed"]) == ("NysAct", 7)
    assert "NysAct, digits, seed 7: 4 steps" in result.output
    assert "epoch 1, training loss" in result.output
    assert str(found.path.relative_to(tmp_path)) in result.output
    assert not (found.path / "tensorboard").exists()
    again = nysact(*options)
    assert "steps" not in again.output
    assert str(found.path.relative_to(tmp_path)) in again.output


def test_train_runs_all_and_settings_can_be_changed(nysact, tmp_path):
    result = nysact("train", "digits.toml", "--set", "optimizer.options.lr=0.5", "--runs", "x")
    assert result.exit_code == 0, result.output
    found = load_runs(tmp_path / "x")
    assert len(found) == 4
    assert {run.config["optimizer"]["options"]["lr"] for run in found} == {0.5}
    assert all(any((run.path / "tensorboard").iterdir()) for run in found)


def test_a_run_that_fails_stops_no_other(nysact, tmp_path, monkeypatch):
    step = Training.step

    def failing(training, inputs, targets):
        if training.config.row == "SGD" and training.config.seed == 0:
            raise torch.OutOfMemoryError("no memory left")
        if training.config.row == "NysAct" and training.config.seed == 1:
            raise ExperimentError("not with this data")
        return step(training, inputs, targets)

    monkeypatch.setattr(Training, "step", failing)
    result = nysact("train", "digits.toml", "--track", "none")
    assert result.exit_code == 1
    finished = [run.config for run in load_runs(tmp_path / "runs") if run.result is not None]
    assert {(c["row"], c["seed"]) for c in finished} == {("SGD", 1), ("NysAct", 0)}
    assert result.stderr.splitlines()[-2:] == [
        "Failed: SGD, digits, seed 0: no memory left",
        "Failed: NysAct, digits, seed 1: not with this data",
    ]
    assert "Traceback" in result.stderr


MISTAKES = {
    ("train", "fashion-tabel2"): "there is no recipe 'fashion-tabel2': the nearest is 'fashion-",
    ("train", "digits.toml", "--row", "SDG"): "digits has no row 'SDG': the nearest is 'SGD'",
    ("train", "digits.toml", "--set", "epoch=3"): "'epoch': the nearest is 'epochs'",
    ("train", "digits.toml", "--set", "epochs=x"): "epochs='x': expected a valid integer",
    ("train", "digits.toml", "--track", "wand"): "there is no tracker 'wand': the nearest is 'wan",
    ("recipes", "digts.toml"): "digts.toml: cannot be read",
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.items(), ids=map(" ".join, MISTAKES))
def test_mistake_is_one_line_that_says_what_is_right(nysact, arguments, message):
    result = nysact(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


# To make every run of every recipe takes seconds.
@pytest.mark.parametrize("few", [3, pytest.param(99, marks=pytest.mark.slow)])
def test_recipes_lists_all(nysact, monkeypatch, few):
    listed = names()[:few]
    monkeypatch.setattr(recipes, "names", lambda: listed)
    result = nysact("recipes")
    assert result.exit_code == 0
    for name in listed:
        assert name in result.output


def test_recipes_shows_every_setting_of_a_run(nysact):
    result = nysact("recipes", "digits.toml", "--row", "NysAct", "--set", "epochs=9")
    assert result.exit_code == 0
    assert "rows: SGD; NysAct" in result.output
    shown = json.loads(result.output[result.output.index("{") :])
    assert (shown["row"], shown["epochs"]) == ("NysAct", 9)
    assert shown["optimizer"]["options"]["rank"] == 10
