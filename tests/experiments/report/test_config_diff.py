"""Copies of runs, and runs that are not what their recipe means."""

import json
import shutil

import pytest

from nysact.experiments.recipes import find_runs, load
from nysact.experiments.report.report import sections_of
from nysact.experiments.run.store import load_runs

from .stored import cells, results_of, write_config, write_run
from .test_results import RECIPE, accuracy


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE.replace("SEEDS", "[0]"))
    return load(str(tmp_path / "mine.toml"))


def table(root, recipe):
    (section,) = sections_of(load_runs(root), [recipe])
    return section.tables["test-accuracy"]


def change(path, name, edit):
    values = json.loads((path / name).read_text())
    edit(values)
    (path / name).write_text(json.dumps(values))


@pytest.mark.parametrize("changed", ["epochs=1", "precision=bf16"])
def test_a_run_with_other_settings_than_the_recipes_says_so_and_has_no_number_of_the_paper(
    tmp_path, recipe, changed
):
    write_config(tmp_path / "runs", find_runs(recipe, seeds=[3], overrides=[changed])[0])
    found = table(tmp_path / "runs", recipe)
    assert list(found.frame) == [f"short ({changed})"]
    assert cells(found, "SGD")[f"short ({changed})"].paper == ""


def test_an_optimizer_with_other_options_than_the_recipes_has_a_row_of_its_own(tmp_path, recipe):
    write_config(tmp_path / "runs", recipe.runs([3])[0])
    changed = find_runs(recipe, seeds=[3], overrides=["optimizer.options.lr=0.3"])
    write_config(tmp_path / "runs", changed[0])
    found = table(tmp_path / "runs", recipe)
    assert list(found.frame) == ["short"]
    papers = {row: cells(found, row)["short"].paper for row in found.frame.index}
    assert papers == {"SGD": "92.80 ± 0.21", "SGD (lr=0.3)": ""}


def test_options_of_optimizers_never_split_the_columns_of_a_comparison(tmp_path):
    """As two calls of compare with the same name leave them."""
    for rate in (0.05, 0.1):
        options = {"name": "sgd", "options": {"lr": rate}, "decay_vectors": True}
        write_run(tmp_path, "SGD", optimizer=options)
    write_run(tmp_path, "NysAct")
    results = results_of(tmp_path)
    assert results.columns == ["LeNet-5, 3 epochs"]
    assert set(results.rows) == {"SGD (lr=0.05)", "SGD (lr=0.1)", "NysAct"}


def test_an_option_that_is_given_as_its_default_is_no_other_option(tmp_path):
    options = {"name": "sgd", "options": {"lr": 0.1}, "decay_vectors": True}
    write_run(tmp_path, "SGD", 0)
    write_run(tmp_path, "SGD", 1, optimizer=options)
    assert results_of(tmp_path).rows == ["SGD"]


def test_optimizers_that_were_not_trained_alike_share_no_column(tmp_path):
    write_run(tmp_path, "SGD", epochs=3)
    write_run(tmp_path, "NysAct", epochs=30)
    assert len(results_of(tmp_path).columns) == 2


def test_a_run_as_the_recipe_means_it_has_the_papers_number(tmp_path, recipe):
    config = find_runs(recipe, seeds=[3], overrides=["data.folder=/elsewhere"])[0]
    path = write_config(tmp_path / "runs", config)
    # An earlier version had no such settings: what is not there has its default.
    change(path, "config.json", lambda v: [v.pop(k) for k in ("precision", "record", "schedule")])
    found = cells(table(tmp_path / "runs", recipe), "SGD")
    assert {name: cell.paper for name, cell in found.items()} == {"short": "92.80 ± 0.21"}


def test_text_is_told_apart_by_its_folder(tmp_path):
    for folder in ("a", "b"):
        write_run(tmp_path, data={"name": "text", "folder": folder})
    assert len(results_of(tmp_path).columns) == 2


def test_what_a_sweep_varies_is_no_other_setting(tmp_path):
    recipe = load("fashion-figure6")
    for config in recipe.runs([0])[:3]:
        write_config(tmp_path, config)
    assert list(results_of(tmp_path, recipe).columns) == ["LeNet-5"]


def test_a_run_that_the_recipe_no_longer_knows_is_shown_all_the_same(tmp_path, recipe):
    path = write_run(tmp_path / "runs", "Adam", recipe="mine", column="short")
    change(path, "config.json", lambda values: values["optimizer"].update(name="gone"))
    assert list(results_of(tmp_path / "runs", recipe).rows) == ["Adam"]


def test_a_copy_of_a_run_does_not_count(tmp_path):
    write_run(tmp_path / "a", accuracies=[40.0, 50.0])
    for folder in ("b", "c"):
        shutil.copytree(tmp_path / "a", tmp_path / folder)
    copy = next((tmp_path / "c").rglob("result.json")).parent
    (copy / "result.json").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text(lines[0])
    results = results_of(tmp_path)
    cell = accuracy(results, "SGD", "LeNet-5, 3 epochs")
    assert (cell.text, cell.note) == ("50.00", "")
    assert results.warnings == []


def test_copies_with_other_results_are_named(tmp_path):
    first = write_run(tmp_path / "a", accuracies=[50.0])
    second = write_run(tmp_path / "b", accuracies=[60.0])
    results = results_of(tmp_path)
    assert len(results.runs) == 1
    (warning,) = results.warnings
    assert str(first) in warning
    assert str(second) in warning
