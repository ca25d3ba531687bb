"""A job that torchrun restarts ends with the weights of an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .elastic import fit
from .training import same

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
OPTIONS = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint_alone(two, how, tmp_path):
    undisturbed = two(fit, tmp_path / "undisturbed", how)
    folder = tmp_path / "killed"
    command = [*TORCHRUN, *OPTIONS, "-m", "tests.distributed.elastic", str(folder), how]
    folder.mkdir()
    root = Path(__file__).parents[2]
    # In a store that is kept over restarts, gloo finds the addresses of processes that are gone.
    settings = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = subprocess.run(
        command, cwd=root, env=settings, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank, expected in enumerate(undisturbed):
        restarts, found = torch.load(folder / f"result{rank}.pt", weights_only=True)
        assert restarts == 1
        assert same(found, expected)
