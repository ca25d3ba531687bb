"""Training by several processes."""

import subprocess
import sys

import pytest

from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.configs import config

SCRIPT = """
import os
import sys
from pathlib import Path
from torch import nn
from nysact.experiments.config import Config
from nysact.experiments.run.display import NoDisplay
from nysact.experiments.run.runner import run

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))

class Killer(NoDisplay):
    def on_step(self, step, loss):
        if step == int(sys.argv[2]):
            os.kill(os.getpid(), 9)

if __name__ == "__main__":
    run(Config.checked({values!r}), Path(sys.argv[1]), cpu=True, build=build, display=Killer())
"""

# As in a union of all samples: which ones a setting in between takes depends on the processes.
OPTIONS = {"sgd": {}, "nysact": {"subsample": 1, "cov_interval": 1, "inv_interval": 3}}


def settings(name: str):
    return config(name, model={"name": "own"}, optimizer={"name": name, "options": OPTIONS[name]})


def launch(folder, values, processes: int = 2, *, kill_at: int = 0) -> bool:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT.format(values=values.model_dump()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(script), str(folder), str(kill_at)]
    return subprocess.run(command, check=False, timeout=240).returncode == 0


def alone(folder, values) -> None:
    scope = {"__name__": "script"}
    exec(SCRIPT.format(values=values.model_dump()), scope)
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
