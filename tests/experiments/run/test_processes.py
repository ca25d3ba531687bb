"""Training by several processes."""

import subprocess
import sys

import pytest
import torch

from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.configs import config

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from torch import nn
from nysact.experiments.config import Config
from nysact.experiments.run.display import Display
from nysact.experiments.run.runner import run

class Noted(nn.Dropout):
    def forward(self, x):
        mask = super().forward(torch.ones_like(x))
        if self.training and self.p and len(sys.argv) > 4:
            place = Path(sys.argv[4]) / os.environ["RANK"]
            with place.open("a") as file:
                print(mask.flatten().tolist(), file=file)
        return x * mask

def build():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), Noted({dropout}), nn.Linear(20, 10)
    )

class Killer(Display):
    def on_step(self, step, loss):
        if step == int(sys.argv[2]):
            os.kill(os.getpid(), 9)

if __name__ == "__main__":
    run(
        Config.checked({values!r}), Path(sys.argv[1]), cpu=True, build=build, display=Killer(),
        checkpoint_seconds=float(sys.argv[3]),
    )
"""

OPTIONS = {"sgd": {}, "nysact": {"cov_interval": 1, "inv_interval": 3}}


def settings(name: str, **changes):
    optimizer = {"name": name, "options": OPTIONS[name]}
    return config(name, model={"name": "own"}, optimizer=optimizer, **changes)


def launch(
    folder, values, *, kill_at: int = 0, checkpoint_seconds: float = 60, masks="", dropout=0.0
) -> bool:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT.format(values=values.model_dump(), dropout=dropout))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(script), str(folder), str(kill_at)]
    command += [str(checkpoint_seconds), *([str(masks)] if masks else [])]
    return subprocess.run(command, check=False, timeout=240).returncode == 0


def alone(folder, values) -> None:
    scope = {"__name__": "script"}
    exec(SCRIPT.format(values=values.model_dump(), dropout=0.0), scope)
    run(values, folder, cpu=True, build=scope["build"])


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_train_as_one_does(tmp_path, name):
    values = settings(name)
    assert launch(tmp_path / "two", values)
    (two,) = load_runs(tmp_path / "two")
    alone(tmp_path / "one", values)
    (one,) = load_runs(tmp_path / "one")
    assert len(two.metrics) == len(one.metrics) == 2
    for a, b in zip(two.metrics, one.metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert two.result["steps"] == 8


@pytest.mark.slow
def test_what_is_finished_is_not_run_again_by_any_process(tmp_path):
    assert launch(tmp_path / "two", settings("sgd"))
    (before,) = (path.stat().st_mtime_ns for path in tmp_path.rglob("result.json"))
    assert launch(tmp_path / "two", settings("sgd"))
    (after,) = (path.stat().st_mtime_ns for path in tmp_path.rglob("result.json"))
    assert before == after


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_process_that_is_killed_takes_nothing_from_the_result(tmp_path, name):
    values = settings(name)
    assert not launch(tmp_path / "killed", values, kill_at=6)
    assert not list(tmp_path.rglob("result.json"))
    assert list(tmp_path.rglob("checkpoint.pt"))
    assert launch(tmp_path / "killed", values)
    assert launch(tmp_path / "undisturbed", values)
    for file in ("metrics.jsonl", "result.json"):
        killed, undisturbed = sorted(tmp_path.rglob(file))
        assert killed.read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_checkpoint_within_an_epoch_loses_nothing_and_changes_nothing(tmp_path, name):
    # Epochs of 62 steps, and a checkpoint after 50 of the first alone.
    values = settings(name, data={"name": "digits", "train_size": 1000, "test_size": 50})
    assert not launch(tmp_path / "killed", values, kill_at=60, checkpoint_seconds=0, dropout=0.5)
    (path,) = tmp_path.rglob("checkpoint.pt")
    state = torch.load(path, weights_only=True)
    assert state["step"] == 50
    assert state["losses"].shape == (2, 50)
    assert not torch.equal(*state["losses"])
    assert launch(tmp_path / "killed", values, checkpoint_seconds=0, dropout=0.5)
    # As if its clock had never said that it is time.
    assert launch(tmp_path / "undisturbed", values, dropout=0.5)
    for file in ("metrics.jsonl", "result.json"):
        killed, undisturbed = sorted(tmp_path.rglob(file))
        assert killed.read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_each_process_drops_other_units(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    assert launch(tmp_path / "runs", settings("sgd"), masks=masks, dropout=0.5)
    first, second = (path.read_text().splitlines() for path in sorted(masks.iterdir()))
    assert len(first) == len(second) == 8
    assert all(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_divergence_ends_all_processes(tmp_path):
    values = settings("sgd", batch_size=16).override(["optimizer.options.lr=1e30"])
    assert launch(tmp_path / "runs", values)
    (found,) = load_runs(tmp_path)
    assert "the training loss is not finite" in found.result["failure"]
