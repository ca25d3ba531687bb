"""``nysact sweep``, as a user types it."""

import pytest
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.recipes import load
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from nysact.experiments.sweeps.search import varied

from .test_reproduce_command import RECIPE

LR, RANK = "optimizer.options.lr", "optimizer.options.rank"
HERE = ("digits.toml", "--row", "NysAct", "--cpu")


@pytest.fixture
def nysact(tmp_path, monkeypatch, timed_runs):
    (tmp_path / "digits.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "100"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["sweep", *arguments])


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--vary", f"{LR}=0.1,0.3", "--vary", f"{RANK}=2,4,8"), "6 of 6 runs"),
        (("--vary", f"{LR}=0.1,0.3", "--seeds", "2"), "4 of 4 runs"),
        (("--vary", f"{LR}=log:0.01:1", "--trials", "5"), "5 of 5 runs"),
        (("--vary", f"{LR}=0.1,0.3", "--search", "random", "--trials", "1"), "1 of 1 runs"),
        (("--vary", f"{LR}=log:0.01:1", "--search", "adaptive"), "20 of 20 trials"),
    ],
)
def test_plan_has_as_many_runs_as_the_search(nysact, tmp_path, options, count):
    result = nysact(*HERE, *options, "--dry-run")
    assert result.exit_code == 0, result.output
    assert count in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"digits.toml"}


@pytest.mark.parametrize("option", ["--runs", "--output"])
@pytest.mark.parametrize("values", ["0.1,0.3", "log:0.01:1"])
def test_folder_that_cannot_be_written_to_is_refused_before_a_run_is_timed(
    nysact, timed_runs, option, values
):
    search = "adaptive" if ":" in values else "grid"
    result = nysact(*HERE, "--vary", f"{LR}={values}", "--search", search, option, "/dev/null/x")
    assert result.exit_code == 2
    assert f"{option} /dev/null/x: cannot be written to" in result.stderr
    assert timed_runs == []


def test_finished_trials_are_reported_and_not_run_again(nysact, tmp_path):
    base = next(c for c in load("digits.toml").runs([0]) if c.row == "NysAct")
    for rate in (0.1, 0.3):
        run(varied(base, "digits-grid", {LR: rate}), tmp_path / "runs", cpu=True)
    result = nysact(*HERE, "--vary", f"{LR}=0.1,0.3")
    assert result.exit_code == 0, result.output
    assert "All 2 runs are finished" in result.output
    table = (tmp_path / "report" / "digits-grid-digits-lr.md").read_text()
    assert "|optimizer|0.1|0.3|" in table.replace(" ", "")


BAD = {
    "setting": (("--vary", "optimizer.options.lrr=1,2"), "nearest is 'optimizer.options.lr'"),
    "values": (("--vary", LR), "expected NAME=VALUE"),
    "search": (("--vary", f"{LR}=1,2", "--search", "gird"), "nearest is 'grid'"),
    "grid of a range": (("--vary", f"{LR}=log:1:2", "--search", "grid"), "a grid needs values"),
    "metric": (
        ("--vary", f"{LR}=1,2", "--search", "adaptive", "--metric", "accuracy"),
        "nearest is 'test_accuracy'",
    ),
    "nothing held out": (
        ("--vary", f"{LR}=1,2", "--search", "adaptive", "--metric", "validation_accuracy"),
        "validation_accuracy: no training samples are held out; add --set data.validation_size=N",
    ),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_an_error_with_a_remedy(nysact, tmp_path, options, message):
    result = nysact(*HERE, *options, "--yes")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_adaptive_search_is_of_one_place(nysact):
    options = ("--vary", f"{LR}=log:0.01:1", "--search", "adaptive", "--dry-run")
    result = nysact("digits.toml", *options)
    assert result.exit_code == 2
    assert "choose one of --row 'NysAct' --column 'digits'; --row 'SGD'" in result.stderr


HELD_OUT = ("--metric", "validation_accuracy", "--set", "data.validation_size=50")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("judged", "label"), [((), "test accuracy"), (HELD_OUT, "validation accuracy")]
)
def test_an_adaptive_search_runs_its_trials_in_processes_and_goes_on(
    nysact, tmp_path, judged, label
):
    vary = ("--vary", f"{LR}=log:0.01:1", "--search", "adaptive")
    options = (*HERE, *vary, *judged, "--jobs", "2", "--yes")
    first = nysact(*options, "--trials", "2")
    assert first.exit_code == 0, first.output
    assert f"Best: {label}" in first.output
    assert len(load_runs(tmp_path / "runs")) == 2
    more = nysact(*options, "--trials", "3")
    assert "1 of 3 trials are left" in more.output
    assert len(load_runs(tmp_path / "runs")) == 3
