"""Tables of metrics, of costs, and of the time to a target."""

import pytest
import torch

from nysact.experiments.clock import StepClock
from nysact.experiments.devices import peak_memory
from nysact.experiments.errors import ExperimentError
from nysact.experiments.metrics import Target, metric_of, parse_target
from nysact.experiments.recipes import Recipe
from nysact.experiments.recipes.recipe_file import RecipeFile
from nysact.experiments.report.tables import (
    first_reached,
    metric_table,
    ratio_table,
    target_table,
    trial_table,
    varied_tables,
)

from .stored import cells, results_of, write_json, write_run, write_table

ACCURACY, LOSS = metric_of("test_accuracy"), metric_of("train_loss")


def test_metric_table_has_mean_spread_marks_and_the_papers_number(tmp_path):
    write_table(tmp_path)
    paper = {"SGD": {"LeNet-5": "92.80±0.21"}}
    table = metric_table(results_of(tmp_path), ACCURACY, paper)
    assert list(table.frame) == ["LeNet-5", "ResNet-20"]
    sgd = cells(table, "SGD")
    assert (sgd["LeNet-5"].text, sgd["LeNet-5"].paper) == ("80.10 ± 0.10", "92.80 ± 0.21")
    assert (sgd["ResNet-20"].mark, sgd["ResNet-20"].paper) == ("", "")
    assert cells(table, "FOOF")["LeNet-5"].mark == "best"
    assert cells(table, "NysAct")["LeNet-5"].mark == "second"


def test_cell_with_a_missing_seed_says_so_and_is_not_ranked(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "SGD", seed, accuracies=[80.0])
        write_run(tmp_path, "AdamW", seed, accuracies=[70.0])
    write_run(tmp_path, "NysAct", 0, accuracies=[99.0])
    table = metric_table(results_of(tmp_path), ACCURACY, {})
    (nysact,) = cells(table, "NysAct").values()
    assert (nysact.note, nysact.mark) == ("n=1/2", "")
    assert next(iter(cells(table, "SGD").values())).mark == "best"


def test_least_loss_is_the_best_and_best_is_not_final(tmp_path):
    write_run(tmp_path, "SGD", accuracies=[1, 1], losses=[0.1, 0.5])
    write_run(tmp_path, "AdamW", accuracies=[1, 1], losses=[0.3, 0.3])
    results = results_of(tmp_path)
    column = "LeNet-5, 3 epochs"
    assert cells(metric_table(results, LOSS, {}), "AdamW")[column].mark == "best"
    best = metric_table(results, LOSS, {}, at="best")
    assert cells(best, "SGD")[column].mark == "best"
    assert cells(best, "SGD")[column].text == "0.1000"


def test_costs_are_relative_to_the_reference_with_the_same_seed(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "SGD", seed, step_seconds=0.1 * (1 + seed), memory=100)
        write_run(tmp_path, "NysAct", seed, step_seconds=0.15 * (1 + seed), memory=110)
    results = results_of(tmp_path)
    paper = {"NysAct": {"LeNet-5, 3 epochs": "1.33, 1.00"}}
    found = cells(ratio_table(results, "SGD", paper), "NysAct")
    time, memory, state = found.values()
    assert (time.text, time.paper) == ("1.50 ± 0.00", "1.33")
    assert (memory.text, memory.paper) == ("1.10 ± 0.00", "1.00")
    assert (state.text, state.paper) == ("1.00 ± 0.00", "")


def test_the_reference_of_costs_has_a_row_and_no_rank(tmp_path):
    for row, seconds in (("SGD", 0.1), ("AdamW", 0.2), ("NysAct", 0.3)):
        write_run(tmp_path, row, step_seconds=seconds)
    table = ratio_table(results_of(tmp_path), "SGD", {})
    times = {row: cells(table, row)["LeNet-5, 3 epochs: time"] for row in table.frame.index}
    assert {row: (cell.text, cell.mark) for row, cell in times.items()} == {
        "SGD": ("1", ""),
        "AdamW": ("2.00", "best"),
        "NysAct": ("3.00", "second"),
    }


def test_a_reference_with_other_options_is_the_reference_all_the_same(tmp_path):
    for rate in (0.05, 0.2):
        options = {"name": "sgd", "options": {"lr": rate}, "decay_vectors": True}
        write_run(tmp_path, "SGD", optimizer=options)
    write_run(tmp_path, "NysAct", step_seconds=0.2)
    table = ratio_table(results_of(tmp_path), "SGD", {})
    assert cells(table, "NysAct")["LeNet-5, 3 epochs: time"].text == "2.00"


def test_times_on_different_devices_are_not_ranked(tmp_path):
    for row, device in (("SGD", "a GPU"), ("NysAct", "a CPU")):
        write_run(tmp_path, row, environment={"device_name": device})
    table = target_table(results_of(tmp_path), ACCURACY, Target(75), {})
    assert {cell.mark for cell in table.frame.iloc[:, 0]} == {"best"}
    assert {cell.mark for cell in table.frame.iloc[:, 1]} == {""}


def test_memory_is_read_as_the_clock_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 9)
    for row, memory in (("SGD", 100), ("NysAct", 110)):
        monkeypatch.setattr(
            torch.cuda, "max_memory_allocated", lambda device, memory=memory: memory
        )
        path = write_run(tmp_path, row)
        clock = StepClock(torch.device("cuda"))
        clock.restore([0.1, 0.1])
        write_json(path / "timing.json", clock.summary() | peak_memory(clock.device))
    found = cells(ratio_table(results_of(tmp_path), "SGD", {}), "NysAct")
    assert found["LeNet-5, 3 epochs: memory"].text == "1.10"


def test_costs_of_different_devices_make_no_ratio(tmp_path):
    for row, device in (("SGD", "a GPU"), ("NysAct", "a GPU"), ("FOOF", "a CPU")):
        write_run(tmp_path, row, environment={"device_name": device})
    table = ratio_table(results_of(tmp_path), "SGD", {})
    assert cells(table, "NysAct")["LeNet-5, 3 epochs: time"].text == "1.00"
    assert cells(table, "FOOF")["LeNet-5, 3 epochs: time"].text == "–"


@pytest.mark.parametrize("numbers", [(1, 1), (1, 2), (1, None)])
def test_times_say_whether_runs_trained_side_by_side(tmp_path, numbers):
    for row, number in zip(("SGD", "NysAct"), numbers, strict=True):
        write_run(tmp_path, row, environment={"side_by_side": number} if number else {})
    results = results_of(tmp_path)
    for table in (ratio_table(results, "SGD", {}), target_table(results, ACCURACY, Target(75), {})):
        assert ("nysact bench" in " ".join(table.notes)) == (numbers != (1, 1))


def test_memory_that_was_not_measured_has_no_column(tmp_path):
    for row in ("SGD", "NysAct"):
        write_run(tmp_path, row)
    headings = list(ratio_table(results_of(tmp_path), "SGD", {}).frame)
    assert [heading.rpartition(": ")[2] for heading in headings] == ["time", "optimizer state"]


def test_target_is_reached_at_the_first_evaluation_that_is_good_enough(tmp_path):
    write_run(tmp_path, accuracies=[50, 72, 60, 90], losses=[3, 2, 1, 0.5], step_seconds=0.5)
    results = results_of(tmp_path)
    ((epoch, seconds),) = first_reached(results, ACCURACY, 72)[["epoch", "seconds"]].to_numpy()
    assert (epoch, seconds) == (2, 10.0)
    assert list(first_reached(results, ACCURACY, 72.1)["epoch"]) == [4]
    assert first_reached(results, ACCURACY, 91).empty
    assert list(first_reached(results, LOSS, 1.0)["epoch"]) == [3]


def test_run_of_so_many_steps_reaches_its_target_after_steps(tmp_path):
    write_run(tmp_path, accuracies=[50, 80, 90], steps=30, epochs=None)
    results = results_of(tmp_path)
    table = target_table(results, ACCURACY, parse_target("75"), {})
    assert cells(table, "SGD")["LeNet-5, 3 epochs to 75.00%: steps"].text == "20"


def test_target_may_be_a_share_of_a_references_best(tmp_path):
    for seed, top in enumerate((78.0, 82.0)):
        write_run(tmp_path, "SGD", seed, accuracies=[60, top, 70])
        write_run(tmp_path, "NysAct", seed, accuracies=[71.9 + seed, 90, 90])
    results = results_of(tmp_path)
    table = target_table(results, ACCURACY, parse_target("90% of SGD"), {})
    goal = "LeNet-5, 3 epochs to 72.00%"
    assert list(table.frame) == [f"{goal}: epochs", f"{goal}: seconds"]
    assert cells(table, "NysAct")[f"{goal}: epochs"].text == "1.5 ± 0.7"
    assert cells(table, "SGD")[f"{goal}: seconds"].text == "2.0 ± 0.0"


def test_seeds_that_never_reach_the_target_are_counted(tmp_path):
    for seed, top in enumerate((70.0, 80.0)):
        write_run(tmp_path, "SGD", seed, accuracies=[top])
    table = target_table(results_of(tmp_path), ACCURACY, Target(75.0), {})
    first, *_ = cells(table, "SGD").values()
    assert (first.text, first.note) == ("1.0", "n=1/2")


@pytest.mark.parametrize("text", ["soon", "90%", "x% of SGD", "1.2.3% of SGD"])
def test_target_that_cannot_be_read_is_an_error(text):
    with pytest.raises(ExperimentError, match="expected a number such as 72, or a share"):
        parse_target(text)


def test_varied_settings_become_columns(tmp_path):
    for row, gain in (("SGD", 0), ("NysAct", 5)):
        for rate in (0.3, 0.03, 0.1):
            sweep = {"optimizer.options.lr": rate}
            write_run(tmp_path, row, sweep=sweep, accuracies=[80 + gain + rate])
    write_run(tmp_path, "FOOF")
    rows = {row: {} for row in ("NysAct", "FOOF", "SGD")}
    recipe = Recipe("made-up", RecipeFile(title="", rows=rows, columns={"another": {}}))
    results = results_of(tmp_path, recipe)
    ((name, table),) = varied_tables(results, ACCURACY).items()
    assert name == "lenet-5-3-epochs-lr"
    assert list(table.frame) == ["0.03", "0.1", "0.3"]
    assert list(table.frame.index) == ["NysAct", "SGD"]
    assert [cell.text for cell in cells(table, "SGD").values()] == ["80.03", "80.10", "80.30"]


def test_trials_come_best_first(tmp_path):
    for rate, accuracy in ((0.1, 80), (0.2, 90), (0.3, 70)):
        sweep = {"optimizer.options.lr": rate, "optimizer.options.damping": 1.0}
        write_run(tmp_path, "NysAct", sweep=sweep, accuracies=[accuracy])
    table = trial_table(results_of(tmp_path), ACCURACY, 2)
    assert table.title == "The best 2 of 3 settings"
    settings = [cell.text for cell in table.frame["setting"]]
    assert settings == ["damping 1, lr 0.2", "damping 1, lr 0.1"]


def test_trials_of_different_columns_are_not_ranked_with_each_other(tmp_path):
    for column, gain in (("easy", 50), ("hard", 0)):
        for rate in (0.1, 0.2):
            sweep = {"optimizer.options.lr": rate}
            write_run(tmp_path, column=column, sweep=sweep, accuracies=[gain + 10 * rate])
    table = trial_table(results_of(tmp_path), ACCURACY, 9)
    found = [(cell.text, cell.mark) for cell in table.frame.iloc[:, -1]]
    assert found == [("52.00", "best"), ("51.00", "second"), ("2.00", "best"), ("1.00", "second")]
