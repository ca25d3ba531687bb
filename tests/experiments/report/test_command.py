"""``nysact report``, as a user types it."""

import pytest
from typer.testing import CliRunner

from nysact.experiments.commands import app

from .stored import write_run

RECIPE = """
title = "A table of my own"
report = { kind = "table", target = "80" }
[run]
model = { name = "lenet5" }
data = { name = "fashion-mnist" }
epochs = 3
threads = 1
[rows.SGD]
optimizer = { name = "sgd" }
[columns."LeNet-5, 3 epochs"]
[paper.SGD]
"LeNet-5, 3 epochs" = "92.80±0.21"
"""


@pytest.fixture
def nysact(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "80"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["report", *arguments])


def test_report_of_any_runs_writes_tables_figures_and_a_page(nysact, tmp_path):
    for row in ("SGD", "NysAct"):
        write_run(tmp_path / "runs", row)
    result = nysact("--target", "75")
    assert result.exit_code == 0, result.output
    assert "90.00" in result.output
    assert "to 75.00%" in " ".join(result.output.split())
    assert result.output.splitlines()[-1] == f"Report: {tmp_path / 'report' / 'report.html'}"
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {
        *("report.html", "made-up-test-accuracy.md", "made-up-test-accuracy.tex"),
        *("made-up-curves-by-epoch.png", "made-up-curves-by-epoch.svg"),
        *("made-up-time-to-target.md",),
    } <= names


def test_a_recipe_of_ones_own_shows_its_columns(nysact, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    write_run(tmp_path / "a", "SGD", recipe="mine")
    write_run(tmp_path / "b", "SGD", recipe="mine", column="another")
    write_run(tmp_path / "b", "SGD", recipe="another")
    result = nysact("a", "b", "--recipe", "mine.toml", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "A table of my own" in result.output
    assert "[92.80 ± 0.21]" in result.output
    assert "another" not in result.output
    assert "92.80 ± 0.21" in (tmp_path / "out" / "mine-test-accuracy.md").read_text()


BAD = {
    "no folder": (("nowhere",), "nowhere: no such folder"),
    "no runs": (("empty",), "empty: there are no runs; train some with nysact train"),
    "other recipe": (("runs", "--recipe", "fashion-table2"), "no runs of fashion-table2"),
    "no recipe": (("runs", "--recipe", "fashion-tabel2"), "nearest is 'fashion-table2'"),
    "target": (("runs", "--target", "soon"), "target 'soon': expected a number"),
    "output": (("runs", "--output", "/dev/null/x"), "--output /dev/null/x: cannot be written to"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_an_error_with_a_remedy(nysact, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "runs", "SGD")
    result = nysact(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_table_of_settings_needs_no_runs(nysact, tmp_path):
    result = nysact("--recipe", "table8")
    assert result.exit_code == 0, result.output
    assert "trivial-augment" in (tmp_path / "report" / "table8-settings.md").read_text()
    assert "of 0 runs" not in (tmp_path / "report" / "report.html").read_text()


def test_copies_that_differ_are_a_warning(nysact, tmp_path):
    write_run(tmp_path / "a", accuracies=[50.0])
    write_run(tmp_path / "b", accuracies=[60.0])
    result = nysact("a", "b")
    assert "Warning: a/made-up/" in result.output
    assert "hold the same run with different results" in result.output
    assert "hold the same run" in (tmp_path / "report" / "report.html").read_text()
