"""A suite of tasks: what is chosen, compared and drawn, where the right answer is known."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.errors import ExperimentError
from nysact.experiments.report import suite
from nysact.experiments.report.suite_report import evaluations_in, write_suite
from nysact.experiments.run.store import load_runs

from .stored import write_run

STEPS = (10, 20, 30)


def run(optimizer, rate, seed, last, *, validation=None, task="task", state="finished", speed=1.0):
    """The evaluations of a run whose accuracy grows evenly to its last value."""
    lines = []
    for step in STEPS:
        share = step / STEPS[-1]
        held_out = last if validation is None else validation
        lines.append(
            {
                **{"task": task, "optimizer": optimizer, "rate": rate, "seed": seed},
                **{"state": state, "metric": "test_accuracy", "chosen_by": "validation_accuracy"},
                **{"mean_step_seconds": speed, "optimizer_state_bytes": 2**20, "peak_memory": 0},
                **{"step": step, "seconds": speed * step, "value": share * last},
                "validation": share * held_out,
            }
        )
    return lines


def frame(*runs):
    lines = [line for lines in runs for line in lines]
    return pd.DataFrame(lines)[suite.COLUMNS]


def searched(optimizer="SGD", **changes):
    """Three rates tried with seed 9, and the best by validation trained with seeds 0 and 1."""
    validations = {0.01: 60, 0.1: 80, 1.0: 70}
    trials = [run(optimizer, rate, 9, 99 - v, validation=v) for rate, v in validations.items()]
    return [*trials, *(run(optimizer, 0.1, seed, 50 + seed, **changes) for seed in range(2))]


def test_rate_is_chosen_by_validation_and_judged_by_other_seeds():
    found = suite.summary(frame(*searched()))
    line = found.loc[("task", "SGD")]
    assert line["rate"] == 0.1
    assert (line["mean"], line["n"], line["runs"]) == (50.5, 2, 2)
    assert line["std"] == pytest.approx(np.std([50, 51], ddof=1))
    assert line["off"] == 20.0  # 80 at the best rate, 60 at the next lower


def test_where_only_the_seed_of_the_search_was_trained_it_is_the_result():
    found = suite.summary(frame(run("SGD", 0.1, 0, 70), run("SGD", 0.3, 0, 60)))
    assert found.loc[("task", "SGD"), "mean"] == 70
    alone = suite.summary(frame(run("SGD", 0.1, 0, 70), run("SGD", 0.1, 1, 60)))
    assert (alone["mean"].item(), alone["runs"].item()) == (65, 2)
    assert alone["off"].isna().item()


def test_a_rate_that_fails_is_not_chosen_and_counts_beside_the_best():
    runs = [run("SGD", 0.1, 0, 70), run("SGD", 0.3, 0, 90, state="failed")]
    line = suite.summary(frame(*runs)).loc[("task", "SGD")]
    assert (line["rate"], line["off"]) == (0.1, np.inf)


def test_a_lower_loss_is_the_better_one():
    lines = frame(run("SGD", 0.1, 0, 0.5), run("SGD", 0.3, 0, 0.3), run("Adam", 0.1, 0, 0.4))
    found = suite.summary(lines.assign(metric="test_loss", chosen_by="validation_loss"))
    assert found["rate"].to_dict() == {("task", "SGD"): 0.3, ("task", "Adam"): 0.1}
    assert found["rank"].to_dict() == {("task", "SGD"): 1, ("task", "Adam"): 2}


def test_an_optimizer_that_failed_with_a_seed_comes_last():
    runs = [run("A", 0.1, s, 90, state="failed" if s else "finished") for s in range(2)]
    runs += [run("B", 0.1, s, 50) for s in range(2)] + [run("C", 0.1, s, 70) for s in range(2)]
    found = suite.summary(frame(*runs)).droplevel("task")
    assert found["rank"].to_dict() == {"A": 3, "B": 2, "C": 1}
    assert found["rival"].to_dict() == {"A": "C", "B": "C", "C": "B"}
    assert (found["n"]["A"], found["runs"]["A"]) == (1, 2)


def test_interval_is_of_differences_with_the_same_seed():
    values = pd.DataFrame({"A": [50.0, 60.0, 70.0], "B": [49.0, 59.0, 69.0]})
    found = suite.against_best_rivals(values, pd.Series({"A": 1, "B": 2}))
    assert found.loc["A", ["difference", "low", "high"]].to_list() == [1, 1, 1]
    assert found.loc["B", ["difference", "low", "high"]].to_list() == [-1, -1, -1]


def test_interval_holds_the_means_of_95_percent_of_the_resamples():
    # Of the 27 resamples of these, 8 have mean 0 and 1 has mean 3, more than 2.5% each.
    assert suite.interval(np.array([0.0, 0.0, 3.0])) == (0.0, 3.0)
    assert all(map(np.isnan, suite.interval(np.array([1.0]))))


def test_target_is_the_final_quality_of_adamw():
    runs = [run("AdamW", 0.1, s, 60.0) for s in range(3)]
    runs += [run("fast", 0.1, s, 90.0, speed=0.5) for s in range(3)]
    runs += [run("slow", 0.1, s, 50.0 + 10 * (s == 0)) for s in range(3)]
    found = suite.summary(frame(*runs)).droplevel("task")
    # "fast" has 30, 60 and 90 at steps 10, 20 and 30.
    assert found["steps"].to_dict() == {"AdamW": 30, "fast": 20, "slow": np.inf}
    assert found["seconds"].to_dict() == {"AdamW": 30, "fast": 10, "slow": np.inf}
    assert found["reached"].to_dict() == {"AdamW": 3, "fast": 3, "slow": 1}


def test_profile_counts_the_tasks_within_a_ratio_to_the_fastest():
    times = {("one", "A"): 1.0, ("one", "B"): 2.0, ("one", "C"): np.inf}
    times |= {("two", "A"): 2.0, ("two", "B"): 2.0, ("two", "C"): 4.0}
    found = pd.DataFrame({"seconds": times}).rename_axis(suite.PLACE)
    shares = suite.profile(found)
    assert shares.loc[1].to_dict() == {"A": 1.0, "B": 0.5, "C": 0.0}
    assert shares.loc[2].to_dict() == {"A": 1.0, "B": 1.0, "C": 0.5}
    # From 1 to 2, and from 2 to 4.
    expected = {"A": 1.0, "B": (0.5 + 2) / 3, "C": (0 + 0.5 * 2) / 3}
    assert suite.area(shares).to_dict() == pytest.approx(expected)


def test_a_task_that_nobody_solves_counts_for_none():
    times = {("one", "A"): np.inf, ("two", "A"): 3.0}
    found = pd.DataFrame({"steps": times}).rename_axis(suite.PLACE)
    assert suite.profile(found, "steps").to_dict() == {"A": {1.0: 0.5}}


def test_stored_runs_become_lines_and_unfinished_ones_do_not(tmp_path):
    write_run(tmp_path, "SGD", accuracies=[50, 70], step_seconds=0.5)
    write_run(tmp_path, "NysAct", seed=1, accuracies=[40, 60], finished=False)
    write_run(tmp_path, "FOOF", accuracies=[30], failure="diverged")
    found = suite.evaluations(load_runs(tmp_path))
    assert found[["optimizer", "step", "seconds", "value"]].to_numpy().tolist() == [
        ["FOOF", 10, 1.0, 30.0],
        ["SGD", 10, 5.0, 50.0],
        ["SGD", 20, 10.0, 70.0],
    ]
    assert found["state"].tolist() == ["failed", "finished", "finished"]
    assert set(found["rate"]) == {0.1}


def whole_suite():
    tasks = ({"task": task} for task in ("images", "text"))
    return frame(
        *(
            line
            for task in tasks
            for level, name in enumerate(("AdamW", "SGD", "NysAct"))
            for rate in (0.03, 0.1, 0.3)
            for line in (
                run(name, rate, seed, 60 + 5 * level + seed - (rate != 0.1), **task)
                for seed in range(2)
            )
        )
    )


def test_everything_is_drawn_again_from_the_csv(tmp_path):
    console = Console(file=StringIO())
    write_suite([whole_suite()], tmp_path / "a", console)
    write_suite([evaluations_in(tmp_path / "a" / "suite.csv")], tmp_path / "b", console)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"suite.csv", "suite.md", "suite-images.md", "suite-text.tex"} <= set(names)
    assert {"suite-time.png", "suite-rates.svg", "suite-profile.png"} <= set(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    lines = (tmp_path / "a" / "suite.md").read_text().splitlines()
    assert lines[4].startswith("| NysAct")
    assert "**70.50 ± 0.71** (1)" in lines[4]
    assert "<u>65.50 ± 0.71</u> (2)" in lines[5]


def test_command_makes_the_suite_of_runs_and_of_a_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for row, gain in (("AdamW", 0), ("NysAct", 10)):
        for seed in range(2):
            write_run(tmp_path / "runs", row, seed, accuracies=[40 + gain, 60 + gain + seed])
    for source, output in (("runs", "first"), ("first/suite.csv", "second")):
        result = CliRunner().invoke(app, ["report", "--suite", source, "--output", output])
        assert result.exit_code == 0, result.output
        assert "LeNet-5, 3 epochs" in result.output
    assert (tmp_path / "first" / "suite.md").read_bytes() == (
        tmp_path / "second" / "suite.md"
    ).read_bytes()


def test_a_csv_of_something_else_names_the_column_that_it_lacks(tmp_path):
    (tmp_path / "other.csv").write_text("task,optimizer\n1,2\n")
    with pytest.raises(ExperimentError, match="there is no column rate; expected the columns task"):
        evaluations_in(tmp_path / "other.csv")


def test_no_run_at_all_is_an_error(tmp_path):
    with pytest.raises(ExperimentError, match="no run that has ended"):
        write_suite([frame(run("SGD", 0.1, 0, 1)).iloc[:0]], tmp_path, Console(file=StringIO()))
