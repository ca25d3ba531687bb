"""Training by several processes."""

import subprocess
import sys

import pytest

from nysact.experiments.runner import run
from nysact.experiments.store import load_runs
from tests.experiments.configs import config

SCRIPT = """
import sys
from pathlib import Path
from torch import nn
from nysact.experiments.config import Config
from nysact.experiments.runner import run

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))

if __name__ == "__main__":
    run(Config.checked({values!r}), Path(sys.argv[1]), cpu=True, build=build)
"""


def launched(tmp_path, script, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(script), str(tmp_path)]
    subprocess.run(command, check=True, timeout=240)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    found = config("sgd", model={"name": "own"})
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(values=found.model_dump()))
    launched(tmp_path / "two", script, 2)
    (two,) = load_runs(tmp_path / "two")
    scope = {"__name__": "script"}
    exec(script.read_text(), scope)
    run(found, tmp_path / "one", cpu=True, build=scope["build"])
    (one,) = load_runs(tmp_path / "one")
    assert len(two.metrics) == len(one.metrics) == 2
    for a, b in zip(two.metrics, one.metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert two.result["steps"] == 8
    # What is finished is not run again by any of them.
    before = (two.path / "result.json").stat().st_mtime_ns
    launched(tmp_path / "two", script, 2)
    assert (two.path / "result.json").stat().st_mtime_ns == before
