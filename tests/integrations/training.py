"""A small problem that every framework trains on, and the optimizers that it is trained with."""

import torch
from torch import nn
from torch.optim import AdamW
from torch.utils.data import TensorDataset

from nysact import NysAct, Preconditioner
from nysact.integrations import attach, unwrap

from ..loops.training import SETTINGS, assert_same, dense, rows

SAMPLES, STEPS, SAVED_AT = 8, 12, 7  # a window is 4 steps: it is saved in the middle of one
ENGINE = {name: value for name, value in SETTINGS.items() if name != "lr"}


class KilledError(Exception):
    """Ends a training where a machine would fail."""


def dataset(count=STEPS):
    data = rows(count, SAMPLES)
    return TensorDataset(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))


def model(seed=0):
    """A model that draws random numbers, as most do."""
    return nn.Sequential(nn.Dropout(0.1), dense(seed))


def nysact(model):
    return NysAct(model, **SETTINGS)


def adamw(model):
    """AdamW with a preconditioner attached, in one state dict."""
    optimizer = AdamW(model.parameters(), lr=0.01)
    attach(Preconditioner(model, **ENGINE), optimizer)
    return optimizer


BUILDERS = [nysact, adamw]


def assert_resumed(optimizer, straight):
    """Hold two trainings against each other, bit for bit: parameters, moments and factors."""
    ours, theirs = unwrap(optimizer), unwrap(straight)
    assert ours.param_groups[0]["step"] == theirs.param_groups[0]["step"] == STEPS
    assert_same(ours, theirs)
    assert_same(optimizer, straight)
    for name in ours.layers:
        assert torch.equal(ours.inverse(name), theirs.inverse(name))
