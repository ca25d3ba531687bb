"""Training that is interrupted: run as a program, it resumes what another process saved."""

import sys

import torch
from torch import nn

from nysact import NysAct

from .training import train

STEPS, SAVED_AT, LATE = 60, 30, 40


class Late(nn.Module):
    """A network whose last branch is not used before step ``LATE``."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, stride=2, groups=2)
        self.head = nn.Linear(36, 3)
        self.branch = nn.Linear(36, 3, bias=False)
        self.late = False
        self.to(dtype)

    def forward(self, inputs):
        inner = torch.tanh(self.norm(self.convolution(inputs)))
        inner = torch.tanh(self.grouped(inner)).flatten(1)
        return self.head(inner) + (self.branch(inner) if self.late else 0)


def cases():
    """Name to the settings of one training; windows are 20 or 50 steps long."""
    yield "columns", {"sketch": "columns", "cov_interval": 4, "inv_interval": 20}
    yield "gaussian", {"sketch": "gaussian", "cov_interval": 5, "inv_interval": 50}
    yield "half", {"sketch": "subspace", "dtype": torch.bfloat16}
    yield "exact", {"sketch": "subspace", "rank": 99, "dtype": torch.float64}


def build(settings):
    settings = {"lr": 0.02, "rank": 4, **settings}
    model = Late(settings.pop("dtype", torch.float32))
    return model, NysAct(model, **settings)


def batch(step, dtype):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(6, 1, 8, 8, generator=generator).to(dtype)
    return inputs, torch.randint(0, 3, (6,), generator=generator)


def run(model, optimizer, first, last):
    for step in range(first, last):
        model.late = step >= LATE
        train(model, optimizer, [batch(step, model.head.weight.dtype)])


def checkpoint(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def main(path, result):
    outcome = {}
    for name, saved in torch.load(path, weights_only=True).items():
        model, optimizer = build(dict(cases())[name])
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        run(model, optimizer, SAVED_AT, STEPS)
        outcome[name] = checkpoint(model, optimizer)
    torch.save(outcome, result)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
