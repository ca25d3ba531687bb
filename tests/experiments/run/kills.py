"""Runs that are killed from the inside, and what must be equal afterwards."""

from pathlib import Path

import pytest
import torch
from torch import nn

from nysact.experiments.run.display import Display
from nysact.experiments.run.runner import run

# What is the same for equal configurations, byte for byte.
RESULTS = ("config.json", "metrics.jsonl", "result.json")


class Killed(BaseException):
    """Ends a run as a signal would, from the inside."""


class KillAfter(Display):
    """Ends the run after some steps of this process."""

    def __init__(self, steps: int) -> None:
        self.steps_left = steps

    def on_step(self, step, loss):
        self.steps_left -= 1
        if self.steps_left == 0:
            raise Killed


def results(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in RESULTS}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoint.pt", weights_only=True)["model"]


def run_with_kills(found, root, kills, **options) -> Path:
    """Run, be killed after so many steps each time, and run on."""
    for steps in kills:
        with pytest.raises(Killed):
            run(found, root, display=KillAfter(steps), **options)
    return run(found, root, **options)


def assert_same(one: Path, other: Path) -> None:
    assert results(one) == results(other)
    for a, b in zip(weights(one).values(), weights(other).values(), strict=True):
        assert torch.equal(a, b)


def dropout_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Dropout(), nn.Linear(20, 10))
