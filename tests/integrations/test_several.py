"""Several processes under torchrun: each framework wraps the model after it has the optimizer."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ..distributed.training import distance, same
from .several import FRAMEWORKS
from .training import BUILDERS, double, tensors

ROOT = Path(__file__).parents[2]


def launch(processes, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "tests.integrations.several", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # frameworks give advice
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_replicas_are_equal_and_resume_bit_for_bit(framework, processes, tmp_path):
    launch(processes, framework, str(tmp_path))
    first, *others = (torch.load(tmp_path / f"{rank}.pt") for rank in range(processes))
    for build in BUILDERS:
        straight, resumed = first[build.__name__]
        assert same(straight, resumed)
        assert all(same(straight, other[build.__name__][0]) for other in others)
        alone = FRAMEWORKS[framework].run(build, tmp_path / "alone" / build.__name__, inner=double)
        expected = tensors(alone)
        names = [name for name in expected if name.endswith("param") or name.startswith("inverse")]
        assert distance(straight, expected, names) < 1e-10
