"""``nysact suite``, as a user types it."""

import pandas
import pytest
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.recipes import load
from nysact.experiments.run.store import load_runs

from .test_reproduce_command import RECIPE

HELD_OUT = RECIPE.replace("test_size = 50", "test_size = 50, validation_size = 40")
HERE = ("digits.toml", "--optimizer", "SGD", "--cpu", "--track", "none")


@pytest.fixture
def nysact(tmp_path, monkeypatch, timed_runs):
    (tmp_path / "digits.toml").write_text(HELD_OUT)
    monkeypatch.chdir(tmp_path)
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "100"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["suite", *arguments])


def test_the_plan_announces_runs_and_time_and_does_nothing(nysact, tmp_path):
    result = nysact(*HERE, "--jobs", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    plan = "11 runs or more are left, of 1 pairs of optimizer and task: 2 at a time, about 39 s"
    assert plan in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"digits.toml"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("suite", "--task", "LeNet5"), "nearest is 'LeNet-5'"),
        (("suite", "--optimizer", "NysAkt"), "nearest is 'NysAct'"),
        ((*HERE, "--runs", "/dev/null/x"), "--runs /dev/null/x: cannot be written to"),
        (HERE, "no terminal to ask on: add --yes"),
    ],
)
def test_mistakes_are_errors_with_a_remedy(nysact, arguments, message):
    result = nysact(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_every_task_holds_samples_out_and_starts_at_the_default_rates():
    for config in load("suite").runs():
        assert config.data.validation_size > 0
        assert config.threads == 1


@pytest.mark.slow
def test_an_optimizer_is_tuned_and_judged_in_processes(nysact, tmp_path):
    options = (*HERE, "--seeds", "2", "--jobs", "2", "--yes")
    first = nysact(*options)
    assert first.exit_code == 0, first.output
    table = pandas.read_csv(tmp_path / "report" / "suite.csv")
    judged = table[table["part"] == "test"]
    assert set(judged["seed"]) == {1, 2}
    last = table[(table["part"] == "tuning") & (table["epoch"] == 2)]
    best = last.sort_values("validation_accuracy").iloc[-1]
    assert set(judged["learning_rate"]) == {best["learning_rate"]}
    runs = len(load_runs(tmp_path / "runs"))
    again = nysact(*options)
    assert "0 runs or more are left" in again.output
    assert len(load_runs(tmp_path / "runs")) == runs
