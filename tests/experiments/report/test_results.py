"""Grouping of stored runs, and samples over seeds."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nysact.experiments.metrics import metric_of
from nysact.experiments.recipes import Recipe, find_runs, load
from nysact.experiments.recipes.recipe_file import RecipeFile
from nysact.experiments.report.results import Sample, best, collect, final
from nysact.experiments.run.failure import failure_of
from nysact.experiments.run.store import load_runs

from .stored import write_config, write_run

RECIPE = """
title = "Mine"
report = { kind = "table" }
seeds = SEEDS
[run]
model = { name = "lenet5" }
data = { name = "fashion-mnist" }
epochs = 3
[columns.short]
[rows.SGD]
optimizer = { name = "sgd" }
[rows.NysAct]
optimizer = { name = "nysact" }
[paper.SGD]
short = "92.80±0.21"
"""

ACCURACY = metric_of("test_accuracy")


def last(run):
    return final(run, ACCURACY)


def test_rows_and_columns_come_in_the_recipes_order_and_others_follow(tmp_path):
    for row in ("AdamW", "NysAct", "SGD"):
        for column in ("b", "a"):
            write_run(tmp_path, row, column=column)
    rows = {row: {} for row in ("SGD", "FOOF", "NysAct")}
    recipe = Recipe("made-up", RecipeFile(title="", rows=rows, columns={"c": {}, "b": {}}))
    results = collect("made-up", load_runs(tmp_path), recipe)
    assert list(results.rows) == ["SGD", "NysAct", "AdamW"]
    assert list(results.columns) == ["b", "a"]


def test_values_are_those_of_the_cells_seeds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "SGD", seed, accuracies=[99.0, 90.0 + seed])
        write_run(tmp_path, "NysAct", seed, accuracies=[1.0, 50.0])
    results = collect("made-up", load_runs(tmp_path))
    sample = results.group("SGD", "LeNet-5, 3 epochs").sample(last)
    assert list(sample.values) == [90.0, 91.0, 92.0]
    assert sample.text(2) == "91.00 ± 1.00"
    assert sample.note == ""
    first, *_ = results.group("SGD", "LeNet-5, 3 epochs").runs
    assert best(first, ACCURACY) == 99.0


def test_missing_diverged_and_failed_runs_are_counted_out(tmp_path):
    write_run(tmp_path, "SGD", 0, accuracies=[90.0])
    write_run(tmp_path, "SGD", 1, accuracies=[10.0], failure="step 3: loss is not finite")
    write_run(tmp_path, "SGD", 2, accuracies=[80.0], finished=False)
    write_run(tmp_path, "SGD", 3, accuracies=[], finished=False, failure="Killed")
    write_run(tmp_path, "NysAct", 4, accuracies=[None])
    results = collect("made-up", load_runs(tmp_path))
    sample = results.group("SGD", "LeNet-5, 3 epochs").sample(last)
    assert (list(sample.values), sample.note, sample.failed) == ([90.0], "n=1/5", 2)
    nysact = results.group("NysAct", "LeNet-5, 3 epochs").sample(last)
    assert (nysact.text(2), nysact.note) == ("–", "n=0/5")
    reasons = [failure_of(run) for run in results.runs]
    assert reasons.count(None) == 3
    assert {"Killed", "step 3: loss is not finite"} <= set(reasons)


def test_failure_is_forgotten_once_the_run_finished(tmp_path):
    path = write_run(tmp_path)
    (path / "failure.txt").write_text("Killed")
    assert failure_of(load_runs(tmp_path)[0]) is None


def own_recipe(path, seeds):
    path.write_text(RECIPE.replace("SEEDS", str(seeds)))
    return load(str(path))


def test_a_cell_with_fewer_seeds_than_the_recipe_has_is_not_complete(tmp_path):
    recipe = own_recipe(tmp_path / "mine.toml", [0, 1, 2])
    for config in recipe.runs([0, 1]):
        write_config(tmp_path / "runs", config)
    write_config(tmp_path / "runs", find_runs(recipe, seeds=[7], overrides=["epochs=5"])[0])
    runs = load_runs(tmp_path / "runs")

    def note(recipe=None, seeds=None):
        return collect("mine", runs, recipe, seeds).group("SGD", "short").sample(last).note

    assert note(recipe) == "n=2/3"
    assert note(recipe, seeds=2) == ""
    assert note(recipe, seeds=5) == "n=2/5"


def test_where_some_cells_have_more_seeds_than_the_recipe_all_should(tmp_path):
    recipe = own_recipe(tmp_path / "mine.toml", [0])
    for config in recipe.runs([0, 1, 2]):
        if config.row == "SGD" or config.seed < 2:
            write_config(tmp_path / "runs", config)
    results = collect("mine", load_runs(tmp_path / "runs"), recipe)
    notes = [results.group(row, "short").sample(last).note for row in ("SGD", "NysAct")]
    assert notes == ["", "n=2/3"]


def test_runs_with_other_settings_are_kept_apart(tmp_path):
    """A trial run with overridden settings must not be averaged with the recipe's own runs."""
    for seed in range(2):
        write_run(tmp_path, "SGD", seed, accuracies=[90.0], epochs=100)
        write_run(tmp_path, "SGD", seed, accuracies=[10.0], epochs=2)
        write_run(tmp_path, "AdamW", seed, accuracies=[91.0], epochs=100)
        write_run(tmp_path, "AdamW", seed, accuracies=[11.0], epochs=2)
    results = collect("made-up", load_runs(tmp_path))
    long, short = (f"LeNet-5, 3 epochs (epochs={number})" for number in (100, 2))
    assert set(results.columns) == {long, short}
    assert list(results.group("SGD", short).sample(last).values) == [10.0, 10.0]
    assert list(results.group("AdamW", long).sample(last).values) == [91.0, 91.0]


def test_place_of_the_data_does_not_keep_runs_apart(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "SGD", seed, data={"name": "fashion-mnist", "folder": f"/{seed}"})
    assert list(collect("made-up", load_runs(tmp_path)).columns) == ["LeNet-5, 3 epochs"]


def test_settings_of_a_sweep_are_groups_of_their_own(tmp_path):
    for rate in (0.1, 0.3):
        write_run(tmp_path, sweep={"optimizer.options.lr": rate}, accuracies=[100 * rate])
    results = collect("made-up", load_runs(tmp_path))
    group = results.group("SGD", "LeNet-5, 3 epochs", (("optimizer.options.lr", 0.3),))
    assert list(group.sample(last).values) == [30.0]
    assert results.group("SGD", "LeNet-5, 3 epochs").runs == ()


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_deviation_is_the_sample_deviation(values):
    sample = Sample(values, len(values))
    assert sample.mean == pytest.approx(statistics.fmean(values))
    assert sample.deviation == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_text_of_few_values():
    assert Sample([90.0], 1).text(2) == "90.00"
    assert Sample([], 3).text(2) == "–"
    assert Sample([], 3, failed=3).text(2) == "failed"
