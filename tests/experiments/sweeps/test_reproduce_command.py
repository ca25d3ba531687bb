"""``nysact reproduce``, as a user types it, and as one who is killed on the way."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.recipes import find_runs, load, names
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import FAILURE, RunFolder, folder_of, load_runs
from nysact.experiments.sweeps.commands import recipes_named

RECIPE = """
title = "Digits"
seeds = [0, 1]
report = { kind = "table", metric = "test_accuracy", reference = "SGD" }
[run]
model = { name = "digits" }
data = { name = "digits", train_size = 64, test_size = 50, flip = true, crop = 1 }
batch_size = 16
epochs = 2
threads = 1
[columns.digits]
[rows.SGD]
optimizer = { name = "sgd" }
[rows.NysAct]
optimizer = { name = "nysact" }
"""


@pytest.fixture
def nysact(tmp_path, monkeypatch, timed_runs):
    (tmp_path / "digits.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "100"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["reproduce", *arguments])


def test_dry_run_shows_the_plan_and_does_nothing(nysact, tmp_path):
    result = nysact("digits.toml", "--seeds", "3", "--jobs", "2", "--dry-run", "--row", "SGD")
    assert result.exit_code == 0, result.output
    assert "3 of 3 runs are missing: about 11 s, 2 at a time" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"digits.toml"}


@pytest.mark.parametrize("option", ["--runs", "--output"])
def test_folder_that_cannot_be_written_to_is_refused_before_a_run_is_timed(
    nysact, timed_runs, option
):
    result = nysact("digits.toml", "--yes", option, "/dev/null/x")
    assert result.exit_code == 2
    assert f"{option} /dev/null/x: cannot be written to" in result.stderr
    assert timed_runs == []


def test_dry_run_says_that_data_would_be_downloaded(nysact, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = nysact("figure6", "--dry-run", "--column", "ResNet-32, CIFAR-10", "--row", "NysAct")
    assert result.exit_code == 0, result.output
    assert (
        "The duration is unknown of 4 kinds of runs, such as NysAct, ResNet-32, CIFAR-10, "
        "inv_interval 5, seed 2: cifar10 is not here, and would be downloaded."
    ) in result.output
    assert "12 of 12 runs are missing: one at a time." in result.output
    assert not (tmp_path / "cache").exists()


def test_a_run_of_another_process_is_not_called_failed(nysact, tmp_path):
    configs = load("digits.toml").runs([0])
    run(configs[1], tmp_path / "runs", cpu=True)
    path = folder_of(configs[0], tmp_path / "runs").path
    with RunFolder(path).locked():
        result = nysact("digits.toml", "--seeds", "1", "--yes", "--cpu")
    assert result.exit_code == 1, result.output
    assert "SGD, digits, seed 0: running elsewhere" in result.output
    assert "Skipped 1 runs in progress elsewhere" in result.output
    assert "ailed" not in result.output
    assert not (path / FAILURE).exists()
    assert "NysAct" in (tmp_path / "report" / "digits-test-accuracy.md").read_text()


def test_settings_are_shown_at_once(nysact, tmp_path):
    result = nysact("table8")
    assert result.exit_code == 0, result.output
    assert "runs" not in result.output.replace(str(tmp_path), "")
    assert (tmp_path / "report" / "table8-settings.tex").is_file()


def test_nothing_starts_without_consent(nysact, tmp_path):
    result = nysact("digits.toml")
    assert result.exit_code == 2
    assert "no terminal to ask on: add --yes" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_finished_runs_are_reported_at_once_and_the_others_planned(nysact, tmp_path):
    for config in load("digits.toml").runs([0]):
        run(config, tmp_path / "runs", cpu=True)
    # Runs of other seeds or settings are none of this table's.
    other = find_runs(load("digits.toml"), seeds=[5], overrides=["epochs=1"])[0]
    run(other, tmp_path / "runs", cpu=True)
    assert "2 of 4 runs are missing" in nysact("digits.toml", "--dry-run").output
    result = nysact("digits.toml", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "All 2 runs are finished" in result.output
    table = (tmp_path / "report" / "digits-test-accuracy.md").read_text()
    assert "|optimizer|digits|" in table.replace(" ", "")
    assert (tmp_path / "report" / "report.html").is_file()
    # Of the seeds that were asked for, none is missing; of the recipe's, one is.
    assert "n=" not in table
    CliRunner().invoke(app, ["report", "--recipe", "digits.toml"])
    assert "n=1/2" in (tmp_path / "report" / "digits-test-accuracy.md").read_text()


def test_a_name_stands_for_all_that_begin_with_it():
    family = [name for name in names() if name.startswith("fashion-")]
    assert [recipe.name for recipe in recipes_named(["fashion"])] == family
    assert [recipe.name for recipe in recipes_named(["fashion-table2", "fashion"])] == [
        *("fashion-table2", *(name for name in family if name != "fashion-table2")),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fashion-tabel2",), "nearest is 'fashion-table2'"),
        (("digits.toml", "--row", "Nysact"), "nearest is 'NysAct'"),
        (("digits.toml", "--set", "epoch=1"), "nearest is 'epochs'"),
        (("digits.toml", "--track", "tensorbord"), "nearest is 'tensorboard'"),
        (("digits.toml", "--slurm", "partition"), "--slurm partition: expected NAME=VALUE"),
        (("digits.toml", "--slurm", "a=1"), "on a machine that has sbatch"),
    ],
)
def test_what_is_wrong_is_an_error_with_a_remedy(nysact, arguments, message):
    result = nysact(*arguments, "--dry-run")
    assert result.exit_code == 2
    assert message in result.stderr


REPRODUCE = [
    *(sys.executable, "-c", "from nysact.experiments.cli import main; main()"),
    *("reproduce", "digits.toml", "--yes", "--jobs", "2", "--cpu"),
]


def files(folder: Path) -> dict[str, bytes]:
    """Read what must not depend on how often a run was stopped."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("result.json", "metrics.jsonl", "config.json")
        for path in sorted(folder.rglob(name))
    }


def evaluations(folder: Path) -> int:
    """Count the evaluations that are stored."""
    stored = load_runs(folder / "runs") if (folder / "runs").is_dir() else []
    return sum(len(run.metrics) for run in stored)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_three_times_at_random_moments_the_results_are_the_same_bit_for_bit(tmp_path):
    recipe = RECIPE.replace("epochs = 2", "epochs = 40").replace("size = 64", "size = 320")
    folders = {name: tmp_path / name for name in ("undisturbed", "killed")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "digits.toml").write_text(recipe)
    draws = random.Random(0)
    # Moments by what is done, of 160 evaluations: the speed of a machine cannot be relied on.
    for moment in sorted(draws.sample(range(5, 120), 3)):
        process = subprocess.Popen(REPRODUCE, cwd=folders["killed"], start_new_session=True)
        while evaluations(folders["killed"]) < moment:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(draws.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for folder in folders.values():
        subprocess.run(REPRODUCE, cwd=folder, check=True)
    logs = [path.read_text() for path in folders["killed"].rglob("log.txt")]
    assert sum("going on after" in log for log in logs) >= 2
    expected = files(folders["undisturbed"] / "runs")
    assert len(expected) == 12
    assert files(folders["killed"] / "runs") == expected
