"""The claims: judged by what was measured, written as JSON, Markdown and pictures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.errors import ExperimentError
from nysact.experiments.theory.check import Size, run_experiments, to_markdown, write_findings

TINY = Size(steps=30, rank_steps=30, epochs=1, batch_sizes=(None, 4), ranks=(2, 64), seeds=(0, 1))


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
    assert len(content["verdicts"]) == 3
    assert [decay["batch_size"] for decay in content["decays"]] == [None, 4] * 2
    assert [one["rank"] for one in content["accuracies"]] == [2, 64] * 2
    for decay in content["decays"]:
        assert decay["steps"][-1] == 30
        assert all(m <= b for m, b in zip(decay["measured"], decay["bounds"], strict=True))


def test_a_claim_fails_when_a_measurement_does(findings):
    _, theorem, remark = findings.verdicts
    assert theorem.holds
    assert remark.holds
    decays = list(findings.decays)
    decays[0] = replace(decays[0], measured=[2 * bound for bound in decays[0].bounds])
    accuracies = list(findings.accuracies)
    accuracies[1] = replace(accuracies[1], measured=1e6)
    norms = [replace(findings.norms[0], steps=[0, 1], layers={"0": [1.0, 2.0]})]
    wrong = replace(findings, norms=norms, decays=decays, accuracies=accuracies)
    assert [verdict.holds for verdict in wrong.verdicts] == [False, False, False]
    assert to_markdown(wrong).count("It does not hold") == 3


def test_a_folder_that_cannot_be_written_to_is_an_error(findings):
    with pytest.raises(ExperimentError, match="--output /dev/null/x: cannot be written to"):
        write_findings(findings, Path("/dev/null/x"))


@pytest.mark.slow
def test_every_claim_holds_and_the_command_says_so(tmp_path):
    result = CliRunner().invoke(app, ["theory", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "theory.md").read_text().count("It holds") == 3
