"""Grouping of stored runs, and samples over seeds."""

import statistics

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nysact.experiments.metrics import metric_of
from nysact.experiments.recipes import Recipe, find_runs, load
from nysact.experiments.recipes.recipe_file import RecipeFile
from nysact.experiments.report.tables import Cell, metric_table, note_of, text_of

from .stored import cells, results_of, write_config, write_run

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
LENET = "LeNet-5, 3 epochs"


def accuracy(results, row, column=LENET):
    return cells(metric_table(results, ACCURACY, {}), row)[column]


def values(results, row, column=LENET):
    chosen = results.where((results.runs["row"] == row) & (results.runs["column"] == column))
    return list(chosen.measured(ACCURACY).reindex(chosen.runs.index))


def test_rows_and_columns_come_in_the_recipes_order_and_others_follow(tmp_path):
    for row in ("AdamW", "NysAct", "SGD"):
        for column in ("b", "a"):
            write_run(tmp_path, row, column=column)
    rows = {row: {} for row in ("SGD", "FOOF", "NysAct")}
    recipe = Recipe("made-up", RecipeFile(title="", rows=rows, columns={"c": {}, "b": {}}))
    results = results_of(tmp_path, recipe)
    assert results.rows == ["SGD", "NysAct", "AdamW"]
    assert results.columns == ["b", "a"]


def test_values_are_those_of_the_cells_seeds(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "SGD", seed, accuracies=[99.0, 90.0 + seed])
        write_run(tmp_path, "NysAct", seed, accuracies=[1.0, 50.0])
    results = results_of(tmp_path)
    assert values(results, "SGD") == [90.0, 91.0, 92.0]
    assert accuracy(results, "SGD") == Cell("91.00 ± 1.00", "best")
    assert results.measured(ACCURACY, "best").max() == 99.0


def test_missing_diverged_and_failed_runs_are_counted_out(tmp_path):
    write_run(tmp_path, "SGD", 0, accuracies=[90.0])
    write_run(tmp_path, "SGD", 1, accuracies=[10.0], failure="step 3: loss is not finite")
    write_run(tmp_path, "SGD", 2, accuracies=[80.0], finished=False)
    write_run(tmp_path, "SGD", 3, accuracies=[], finished=False, failure="Killed")
    write_run(tmp_path, "NysAct", 4, accuracies=[None])
    results = results_of(tmp_path)
    assert accuracy(results, "SGD") == Cell("90.00", note="n=1/5")
    assert accuracy(results, "NysAct") == Cell("–", note="n=0/5")
    assert sorted(results.runs["state"]) == [
        "failed",
        "failed",
        "finished",
        "finished",
        "unfinished",
    ]
    assert set(results.runs["failure"].dropna()) == {"Killed", "step 3: loss is not finite"}


def test_a_last_value_that_is_not_finite_is_not_replaced_by_an_earlier_one(tmp_path):
    write_run(tmp_path, "SGD", accuracies=[90.0, None])
    assert accuracy(results_of(tmp_path), "SGD").text == "–"


def test_failure_is_forgotten_once_the_run_finished(tmp_path):
    path = write_run(tmp_path)
    (path / "failure.txt").write_text("Killed")
    assert list(results_of(tmp_path).runs["state"]) == ["finished"]


def own_recipe(path, seeds):
    path.write_text(RECIPE.replace("SEEDS", str(seeds)))
    return load(str(path))


def test_a_cell_with_fewer_seeds_than_the_recipe_has_is_not_complete(tmp_path):
    recipe = own_recipe(tmp_path / "mine.toml", [0, 1, 2])
    for config in recipe.runs([0, 1]):
        write_config(tmp_path / "runs", config)
    write_config(tmp_path / "runs", find_runs(recipe, seeds=[7], overrides=["epochs=5"])[0])

    def note(seeds=None):
        return accuracy(results_of(tmp_path / "runs", recipe, seeds), "SGD", "short").note

    assert note() == "n=2/3"
    assert note(seeds=2) == ""
    assert note(seeds=5) == "n=2/5"


def test_where_some_cells_have_more_seeds_than_the_recipe_all_should(tmp_path):
    recipe = own_recipe(tmp_path / "mine.toml", [0])
    for config in recipe.runs([0, 1, 2]):
        if config.row == "SGD" or config.seed < 2:
            write_config(tmp_path / "runs", config)
    results = results_of(tmp_path / "runs", recipe)
    assert [accuracy(results, row, "short").note for row in ("SGD", "NysAct")] == ["", "n=2/3"]


def test_runs_with_other_settings_are_kept_apart(tmp_path):
    """A trial run with overridden settings must not be averaged with the recipe's own runs."""
    for seed in range(2):
        write_run(tmp_path, "SGD", seed, accuracies=[90.0], epochs=100)
        write_run(tmp_path, "SGD", seed, accuracies=[10.0], epochs=2)
        write_run(tmp_path, "AdamW", seed, accuracies=[91.0], epochs=100)
    results = results_of(tmp_path)
    long, short = (f"{LENET} (epochs={number})" for number in (100, 2))
    assert set(results.columns) == {long, short}
    assert values(results, "SGD", short) == [10.0, 10.0]
    assert values(results, "AdamW", long) == [91.0, 91.0]


def test_place_of_the_data_does_not_keep_runs_apart(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "SGD", seed, data={"name": "fashion-mnist", "folder": f"/{seed}"})
    assert results_of(tmp_path).columns == [LENET]


def test_settings_of_a_sweep_are_groups_of_their_own(tmp_path):
    for rate in (0.1, 0.3):
        write_run(tmp_path, sweep={"optimizer.options.lr": rate}, accuracies=[100 * rate])
    results = results_of(tmp_path)
    summary = results.summary(results.measured(ACCURACY)).set_index("setting")
    assert summary["mean"]['{"optimizer.options.lr": 0.3}'] == 30.0
    assert results.plain.runs.empty
    assert len(results.rows) == len(results.columns) == 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
@settings(max_examples=25, deadline=None)
def test_deviation_is_the_sample_deviation(tmp_path_factory, values):
    root = tmp_path_factory.mktemp("runs")
    for seed, value in enumerate(values):
        write_run(root, "SGD", seed, accuracies=[value])
    results = results_of(root)
    (line,) = results.summary(results.measured(ACCURACY)).itertuples()
    assert line.mean == pytest.approx(statistics.fmean(values))
    assert line.std == pytest.approx(statistics.stdev(values), abs=1e-6)


@pytest.mark.parametrize(
    ("n", "failed", "text", "note"),
    [
        (1, 0, "90.00", "n=1/3"),
        (0, 0, "–", "n=0/3"),
        (0, 3, "failed", "n=0/3"),
        (3, 0, "90.00 ± 0.00", ""),
    ],
)
def test_text_of_few_values(n, failed, text, note):
    line = pd.Series({"mean": 90.0, "std": 0.0, "n": n, "failed": failed, "expected": 3})
    assert (text_of(line, 2), note_of(line)) == (text, note)
