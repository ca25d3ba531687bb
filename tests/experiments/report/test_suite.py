"""What a suite of tasks says of each optimizer, where the right answer is known."""

import re
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.errors import ExperimentError
from nysact.experiments.metrics import METRICS
from nysact.experiments.report import suite
from nysact.experiments.report.suite_report import read_results, write_suite

STEPS = (10, 20, 30)


def run(
    optimizer, rate, seed, last, *, part="test", task="task", failure=None, speed=1.0, of="accuracy"
):
    """The evaluations of a run whose metric grows evenly to its last value."""
    place = {"task": task, "optimizer": optimizer, "learning_rate": rate, "seed": seed}
    costs = {"mean_step_seconds": speed, "optimizer_state_bytes": 2**20}
    return [
        {
            **{**place, "part": part, "failure": failure, "run": "0123", **costs},
            **{"step": step, "epoch": 1, "seconds": speed * step},
            **{f"{name}_{of}": last * step / STEPS[-1] for name in ("test", "validation")},
        }
        for step in STEPS
    ]


def tuned(optimizer="SGD", validation=((0.01, 60), (0.1, 80), (1.0, 70)), **changes):
    """Runs that choose a rate; ``None`` is one that failed."""
    runs = []
    for rate, value in validation:
        failure = "diverged" if value is None else None
        runs += run(optimizer, rate, 0, value or 0, part="tuning", failure=failure, **changes)
    return runs


def frame(*runs):
    return suite.judged(pd.DataFrame([line for lines in runs for line in lines]))


def summary(*runs):
    return suite.summary(frame(*runs)).droplevel("task")


def test_the_final_runs_are_judged_and_those_that_chose_the_rate_are_not():
    found = summary(tuned(), run("SGD", 0.1, 1, 50), run("SGD", 0.1, 2, 51)).loc["SGD"]
    assert (found["rate"], found["mean"], found["n"], found["runs"]) == (0.1, 50.5, 2, 2)
    assert found["std"] == pytest.approx(np.std([50, 51], ddof=1))


@pytest.mark.parametrize(
    ("validation", "off"),
    [
        (((0.01, 60), (0.1, 80), (1.0, 70)), 20.0),
        (((0.01, 10), (0.1, 60), (1.0, 80)), 20.0),
        (((0.01, 79), (0.1, 80), (1.0, None)), np.inf),
        (((0.1, 80),), np.nan),
    ],
)
def test_sensitivity_is_the_larger_loss_at_the_rates_beside_the_best(validation, off):
    found = summary(tuned(validation=validation), run("SGD", 0.1, 1, 50))
    assert found["off"].to_list() == pytest.approx([off], nan_ok=True)


def test_a_lower_loss_is_the_better_one():
    runs = [tuned(validation=((0.1, 0.5), (0.3, 0.2), (1.0, 0.3)), of="loss")]
    runs += [run("SGD", 0.3, 1, 0.3, of="loss"), run("Adam", 0.1, 1, 0.4, of="loss")]
    found = summary(*runs)
    assert found["rank"].to_dict() == {"SGD": 1, "Adam": 2}
    assert set(found["metric"]) == {"test_loss"}
    assert found["off"]["SGD"] == pytest.approx(0.3)


def test_each_task_has_the_metric_that_it_recorded():
    images = run("SGD", 0.1, 1, 50, task="images")
    text = run("SGD", 0.1, 1, 2, task="text", of="loss")
    text = [{**line, "bits_per_byte": 3.0} for line in text]
    found = suite.summary(frame(tuned(task="images"), images, text))
    assert found["metric"].droplevel("optimizer").to_dict() == {
        "images": "test_accuracy",
        "text": "bits_per_byte",
    }


def test_every_metric_of_a_test_can_judge_a_task():
    assert set(suite.TEST) == {n for n in METRICS if not n.startswith(("train", "validation"))}


def test_an_optimizer_that_failed_with_a_seed_comes_last():
    runs = [run("A", 0.1, 1, 90), run("A", 0.1, 2, 90, failure="diverged"), tuned("A")]
    runs += [run(name, 0.1, seed, 50 + 20 * (name == "C")) for name in "BC" for seed in (1, 2)]
    found = summary(*runs)
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
    runs = [run("AdamW", 0.1, seed, 60.0) for seed in range(3)]
    runs += [run("fast", 0.1, seed, 90.0, speed=0.5) for seed in range(3)]
    runs += [run("slow", 0.1, seed, 50.0 + 10 * (seed == 0)) for seed in range(3)]
    found = summary(tuned("AdamW"), *runs)
    # "fast" has 30, 60 and 90 at steps 10, 20 and 30.
    assert found["steps"].to_dict() == {"AdamW": 30, "fast": 20, "slow": np.inf}
    assert found["seconds"].to_dict() == {"AdamW": 30, "fast": 10, "slow": np.inf}
    assert found["reached"].to_dict() == {"AdamW": 3, "fast": 3, "slow": 1}


def test_profile_counts_the_tasks_within_a_ratio_to_the_fastest():
    times = {("one", "A"): 1.0, ("one", "B"): 2.0, ("one", "C"): np.inf}
    times |= {("two", "A"): 2.0, ("two", "B"): 2.0, ("two", "C"): 4.0}
    shares = suite.profile(pd.DataFrame({"seconds": times}).rename_axis(suite.PLACE))
    assert shares.loc[1].to_dict() == {"A": 1.0, "B": 0.5, "C": 0.0}
    assert shares.loc[2].to_dict() == {"A": 1.0, "B": 1.0, "C": 0.5}
    # From 1 to 2, and from 2 to 4.
    expected = {"A": 1.0, "B": (0.5 + 2) / 3, "C": (0 + 0.5 * 2) / 3}
    assert suite.area(shares).to_dict() == pytest.approx(expected)


def test_a_task_that_nobody_solves_counts_for_none():
    times = {("one", "A"): np.inf, ("two", "A"): 3.0}
    found = pd.DataFrame({"steps": times}).rename_axis(suite.PLACE)
    assert suite.profile(found, "steps").to_dict() == {"A": {1.0: 0.5}}


def whole_suite():
    lines = []
    for task in ("images", "text"):
        for level, name in enumerate(("AdamW", "SGD", "NysAct")):
            lines += tuned(name, task=task)
            for seed in (1, 2):
                lines += run(name, 0.1, seed, 60 + 5 * level + seed, task=task)
    return pd.DataFrame(lines)


def test_command_draws_everything_from_the_raw_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole_suite().to_csv("suite.csv", index=False)
    for output in ("first", "second"):
        result = CliRunner().invoke(app, ["report", "suite.csv", "--output", output])
        assert result.exit_code == 0, result.output
        assert "Final quality on each task" in result.output
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert {"suite.md", "suite-images.md", "suite-text.tex"} <= set(names)
    assert {"suite-time.png", "suite-rates.svg", "suite-profile.png"} <= set(names)
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (
            tmp_path / "second" / name
        ).read_bytes(), name
    lines = (tmp_path / "first" / "suite.md").read_text().splitlines()
    assert lines[4].startswith("| NysAct")
    assert "**71.50 ± 0.71** (1)" in lines[4]
    assert "<u>66.50 ± 0.71</u> (2)" in lines[5]
    task = (tmp_path / "first" / "suite-text.md").read_text()
    assert r"| SGD | +5.00 \[+5.00, +5.00\] |" in re.sub(" +", " ", task)
    assert "20.00" in task


def test_other_csv_files_say_what_they_lack(tmp_path):
    (tmp_path / "other.csv").write_text("task,optimizer\n1,2\n")
    with pytest.raises(ExperimentError, match="there is no column learning_rate; expected the su"):
        read_results(tmp_path / "other.csv")
    pd.DataFrame(tuned()).to_csv(tmp_path / "tuned.csv", index=False)
    with pytest.raises(ExperimentError, match="there is no run of the part test"):
        read_results(tmp_path / "tuned.csv")


def test_failed_runs_are_told_in_words(tmp_path):
    results = pd.DataFrame([*tuned("A"), *run("A", 0.1, 1, 50, failure="loss is nan at step 3")])
    write_suite(results, tmp_path, Console(file=StringIO()))
    assert "| failed (1 failed) | – | – | never (0/1) |" in re.sub(
        " +", " ", (tmp_path / "suite-task.md").read_text()
    )
