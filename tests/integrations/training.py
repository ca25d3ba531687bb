"""A small problem that every framework trains on, and the optimizers that it is trained with."""

import os

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.utils.data import TensorDataset

from nysact import NysAct, Preconditioner
from nysact.integrations import attach, unwrap

from ..loops.training import SETTINGS, dense, learned, rows

SAMPLES, STEPS, SAVED_AT = 8, 12, 7  # a window is 4 steps: it is saved in the middle of one
ENGINE = {name: value for name, value in SETTINGS.items() if name != "lr"}


# Unless it looks for unused parameters, DistributedDataParallel regroups gradients after its first
# step, and with more than two processes its sums then have another order and other last bits.
PROCESSES = int(os.environ.get("WORLD_SIZE", 1))
FIXED_ORDER = PROCESSES > 2


class KilledError(Exception):
    """Ends a training where a machine would fail."""


def dataset(count=STEPS, dtype=torch.float32):
    data = rows(count, SAMPLES, dtype=dtype)
    return TensorDataset(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))


def model(seed=0):
    """A model that draws random numbers, as most do."""
    return nn.Sequential(nn.Dropout(0.1), dense(seed))


def double(seed=0):
    """A model that several processes and one train alike, to rounding."""
    return dense(seed, torch.float64)


def nysact(model):
    return NysAct(model, **SETTINGS)


def adamw(model):
    """AdamW with a preconditioner attached, in one state dict."""
    optimizer = AdamW(model.parameters(), lr=0.01)
    attach(Preconditioner(model, **ENGINE), optimizer)
    return optimizer


BUILDERS = [nysact, adamw]


def tensors(optimizer):
    """All that a training has learned, by name; the factors of an attached preconditioner too."""
    engine = unwrap(optimizer)
    factors = {f"inverse {name}": engine.inverse(name) for name in engine.layers}
    statistics = {f"engine {name}": value for name, value in learned(engine).items()}
    return {**learned(optimizer), **statistics, **factors}


def assert_resumed(optimizer, straight):
    """Hold two trainings against each other, bit for bit: parameters, moments and factors."""
    for each in (optimizer, straight):
        assert unwrap(each).param_groups[0]["step"] == STEPS
    ours, theirs = tensors(optimizer), tensors(straight)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def assert_a_kill_changes_nothing(run, build, folder):
    """Compare a training that is killed and resumed with an undisturbed one."""
    straight = run(build, folder / "straight")
    with pytest.raises(KilledError):
        run(build, folder / "killed", kill=True)
    assert_resumed(run(build, folder / "killed", seed=1, resume=True), straight)
