"""The claims: judged by what was measured, written as JSON, Markdown and pictures."""

import json
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import pytest
import typer
from benchmarks.theory.__main__ import theory
from benchmarks.theory.check import Size, run_experiments, to_markdown, write_findings
from benchmarks.theory.measure import Accuracy, Decay
from benchmarks.theory.verdicts import judge_accuracies, judge_decays, trend
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from typer.testing import CliRunner

from nysact.experiments.errors import ExperimentError

TINY = Size(
    steps=30, rank_steps=30, epochs=1, batch_sizes=(None, 4), ranks=(2, 4), seeds=(0, 1),
    sketches=("gaussian", "subspace"),
)  # fmt: skip


@pytest.fixture(scope="module")
def findings():
    return run_experiments(TINY)


def test_findings_are_written_whole(findings, tmp_path):
    files = write_findings(findings, tmp_path / "new" / "folder")
    assert [path.name for path in files] == [
        *("theory.json", "theory.md"),
        *("theory-norms.png", "theory-norms.svg"),
        *("theory-decay.png", "theory-decay.svg"),
        *("theory-error.png", "theory-error.svg"),
    ]
    assert all(path.stat().st_size > 0 for path in files)
    content = json.loads(files[0].read_text())
    assert len(content["verdicts"]) == 4
    assert [decay["batch_size"] for decay in content["decays"]] == [None, 4] * 2
    of_problem = content["accuracies"][:10]
    assert [(one["sketch"], one["rank"]) for one in of_problem[:5]] == [
        *(("gaussian", 2), ("gaussian", 4), ("subspace", 2), ("subspace", 4), ("subspace", 64))
    ]
    own, common = ([one["rate"] for one in of_problem if one["common"] == c] for c in (False, True))
    assert set(common) == {min(own)}
    assert len(set(own)) > 1
    for decay in content["decays"]:
        assert decay["steps"][-1] == 30
        assert all(m <= b for m, b in zip(decay["measured"], decay["bounds"], strict=True))


STEPS = (1, 10, 100, 1000)


def decay(exponent: float, batch_size: int | None = None, share: float = 0.5) -> Decay:
    measured = [step**exponent for step in STEPS]
    return Decay("made", batch_size, 1.0, 0.0, STEPS, measured, [m / share for m in measured])


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ([decay(-1), decay(0, 4)], True),
        ([decay(-0.95), decay(-0.2, 4)], True),
        ([decay(-0.8), decay(0, 4)], False),
        ([decay(-1.2), decay(0, 4)], False),
        ([decay(-1), decay(-0.9, 4)], False),
        ([decay(-1), decay(-0.9, 8), decay(-0.3, 1)], True),
        ([decay(-1), decay(-0.2, 8), decay(-0.3, 1)], False),
        ([decay(-0.95), decay(-0.96, 8), decay(-0.3, 1)], False),
        ([decay(-1, share=1.1), decay(0, 4)], False),
        ([decay(-1), decay(0, 4, share=1.1)], False),
    ],
)
def test_theorem_holds_with_its_exponent_below_its_bound_alone(found, holds):
    assert judge_decays(found).holds == holds


def accuracies(measured, share: float = 0.5) -> list[Accuracy]:
    return [
        Accuracy("made", "columns", 8 - i, 0.1 * i, True, 1.0, m, m / share, 0.0)
        for i, m in enumerate(measured)
    ]


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (accuracies([1, 2, 3, 4, 5]), True),
        (accuracies([1, 3, 2, 4, 5]), True),
        # The ends alone would do.
        (accuracies([2, 9, 8, 7, 3]), False),
        (accuracies([5, 4, 3, 2, 1]), False),
        (accuracies([1, 2, 3, 4, 5], share=1.1), False),
    ],
)
def test_remark_holds_if_errors_and_norms_are_ordered_alike(found, holds):
    assert judge_accuracies(found, common=True).holds == holds


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1)),
        min_size=3,
        unique_by=(itemgetter(0), itemgetter(1)),
    )
)
def test_trend_is_the_rank_correlation(pairs):
    found = [replace(accuracies([1])[0], error=error, measured=norm) for error, norm in pairs]
    assert trend(found) == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)


def test_norms_that_grow_are_not_bounded(findings):
    norms = [replace(findings.norms[0], steps=[0, 1], layers={"0": [1.0, 2.0]})]
    wrong = replace(findings, norms=norms)
    assert not wrong.verdicts[0].holds
    assert "It does not hold" in to_markdown(wrong)


def test_a_folder_that_cannot_be_written_to_is_an_error(findings):
    with pytest.raises(ExperimentError, match="--output /dev/null/x: cannot be written to"):
        write_findings(findings, Path("/dev/null/x"))


@pytest.mark.slow
def test_every_claim_holds_and_the_command_says_so(tmp_path):
    app = typer.Typer()
    app.command()(theory)
    result = CliRunner().invoke(app, ["--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    claims = json.loads((tmp_path / "theory.json").read_text())["verdicts"]
    assert [claim["holds"] for claim in claims if not claim["control"]] == [True] * 3
