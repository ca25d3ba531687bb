"""Copies of runs, and runs that are not what their recipe means."""

import json
import shutil

import pytest

from nysact.experiments.metrics import metric_of
from nysact.experiments.recipes import find_runs, load
from nysact.experiments.report.report import sections_of
from nysact.experiments.report.results import collect, final
from nysact.experiments.run.store import load_runs

from .stored import write_config, write_run
from .test_results import RECIPE
from .test_tables import cells


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


@pytest.mark.parametrize("changed", ["epochs=1", "precision=bf16", "optimizer.options.lr=0.3"])
def test_a_run_with_other_settings_than_the_recipes_says_so_and_has_no_number_of_the_paper(
    tmp_path, recipe, changed
):
    write_config(tmp_path / "runs", find_runs(recipe, seeds=[3], overrides=[changed])[0])
    found = table(tmp_path / "runs", recipe)
    assert list(found.headings[1:]) == [f"short ({changed})"]
    assert cells(found, "SGD")[f"short ({changed})"].paper == ""


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
    assert len(collect("made-up", load_runs(tmp_path)).columns) == 2


def test_what_a_sweep_varies_is_no_other_setting(tmp_path):
    recipe = load("fashion-figure6")
    for config in recipe.runs([0])[:3]:
        write_config(tmp_path, config)
    assert list(collect("x", load_runs(tmp_path), recipe).columns) == ["LeNet-5"]


def test_a_run_that_the_recipe_no_longer_knows_is_shown_all_the_same(tmp_path, recipe):
    path = write_run(tmp_path / "runs", "Adam", recipe="mine", column="short")
    change(path, "config.json", lambda values: values["optimizer"].update(name="gone"))
    assert list(collect("mine", load_runs(tmp_path / "runs"), recipe).rows) == ["Adam"]


def test_a_copy_of_a_run_does_not_count(tmp_path):
    write_run(tmp_path / "a", accuracies=[40.0, 50.0])
    for folder in ("b", "c"):
        shutil.copytree(tmp_path / "a", tmp_path / folder)
    copy = next((tmp_path / "c").rglob("result.json")).parent
    (copy / "result.json").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text(lines[0])
    results = collect("made-up", load_runs(tmp_path))
    (group,) = results.groups
    sample = group.sample(lambda run: final(run, metric_of("test_accuracy")))
    assert (sample.text(2), sample.note) == ("50.00", "")
    assert results.warnings == []


def test_copies_with_other_results_are_named(tmp_path):
    first = write_run(tmp_path / "a", accuracies=[50.0])
    second = write_run(tmp_path / "b", accuracies=[60.0])
    results = collect("made-up", load_runs(tmp_path))
    assert len(results.runs) == 1
    (warning,) = results.warnings
    assert str(first) in warning
    assert str(second) in warning
