import pytest
import torch

from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from nysact.experiments.run.training import Training
from tests.experiments.configs import config
from tests.experiments.run.kills import KillAfter, results, run_with_kills


def test_diverged_run_ends_with_a_result_that_says_so(tmp_path):
    wild = config("sgd", optimizer={"name": "sgd", "options": {"lr": 1e30}})
    run(wild, tmp_path)
    (found,) = load_runs(tmp_path)
    step = int(found.result["failure"].partition(":")[0].removeprefix("step "))
    assert found.result["failure"] == f"step {step}: the training loss is not finite"
    # That of the first bad step, which is before the evaluation that notices it.
    assert 1 < step < 4
    assert found.result["metrics"]["final"]["train_loss"] is None
    assert found.result["steps"] == 4
    assert run(wild, tmp_path, display=KillAfter(1)), "a failed run was run again"


def breaking(monkeypatch, bad: int) -> None:
    """Have the loss of one step be no number, whichever process does it."""
    real = Training.step

    def step(self, inputs, targets):
        loss = real(self, inputs, targets)
        if self.step_number == bad:
            self._losses[-1] = loss * float("nan")
        return loss

    monkeypatch.setattr(Training, "step", step)


LONG = {"data": {"name": "digits", "test_size": 50}, "model": {"name": "digits"}}


@pytest.mark.parametrize(
    ("bad", "noticed"), [(7, 50), (50, 50), (51, 62), (62, 62), (63, 100), (101, 124)]
)
def test_divergence_ends_a_run_at_the_next_look(tmp_path, monkeypatch, bad, noticed):
    breaking(monkeypatch, bad)
    run(config("sgd", **LONG), tmp_path)
    (found,) = load_runs(tmp_path)
    assert found.result["failure"] == f"step {bad}: the training loss is not finite"
    assert found.result["steps"] == found.metrics[-1]["step"] == noticed


def test_divergence_is_the_same_after_a_kill(tmp_path, monkeypatch):
    breaking(monkeypatch, 13)
    undisturbed = run(config("sgd", **LONG), tmp_path / "a")
    options = {"checkpoint_seconds": 0}
    disturbed = run_with_kills(config("sgd", **LONG), tmp_path / "b", [20], **options)
    assert results(undisturbed) == results(disturbed)


def test_losses_are_looked_at_every_so_many_steps_alone(tmp_path, monkeypatch):
    steps = []
    real = Training.first_failure
    monkeypatch.setattr(
        Training, "first_failure", lambda self: steps.append(self.step_number) or real(self)
    )
    run(config("sgd", **LONG), tmp_path)
    assert steps == [50, 62, 100, 124]


def test_memory_that_runs_out_is_no_result(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("nysact.experiments.run.training.training_step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(config(), tmp_path)
    assert load_runs(tmp_path)[0].result is None


def test_failed_factorisation_ends_the_run(tmp_path, monkeypatch):
    def fail(*args):
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr("nysact.experiments.run.training.training_step", fail)
    run(config(), tmp_path)
    assert load_runs(tmp_path)[0].result["failure"] == "step 1: not positive definite"
