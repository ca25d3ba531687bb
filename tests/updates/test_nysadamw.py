"""NysAdamW is AdamW on preconditioned gradients."""

import pytest
import torch
from torch import nn

from nysact import NysAdamW, Preconditioner

from ..oracles import error, randn

SETTINGS = {"cov_interval": 1, "inv_interval": 2, "rank": 3}
OPTIONS = {
    "defaults": {},
    "rates": {"lr": 0.03, "betas": (0.7, 0.9), "weight_decay": 0.2},
    "maximize": {"maximize": True},
    "foreach": {"foreach": True},
}


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


def backward(model, step):
    model.zero_grad()
    (model(randn(6, 1, 4, 4, seed=step)) * randn(6, 3, seed=step + 100)).sum().backward()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_with_endless_damping_each_step_is_that_of_adamw(options):
    model, plain = network(), network()
    # Endless damping makes gradients small, which AdamW does not see if eps is no larger.
    endless = {"damping": 1e12, "damping_scale": "absolute", "eps": 1e-30}
    optimizer = NysAdamW(model, **SETTINGS, **endless, **options)
    adamw = torch.optim.AdamW(plain.parameters(), **{"eps": 1e-30, **options})
    for step in range(6):
        for each, stepper in ((model, optimizer), (plain, adamw)):
            backward(each, step)
            stepper.step()
        for name, param in plain.named_parameters():
            # The convolution's bias has no gradient but rounding: the norm takes it off again.
            if name != "0.bias":
                found = model.get_parameter(name).detach()
                assert error(found, param.detach()) < 1e-8, name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_step_is_that_of_adamw_on_preconditioned_gradients(options):
    model, other = network(), network()
    optimizer = NysAdamW(model, **SETTINGS, **options)
    gentle = {"damping": 0.5, "damping_scale": "trace", "power": "auto", "memory": "long"}
    preconditioner = Preconditioner(other, **SETTINGS, **gentle)
    adamw = torch.optim.AdamW(other.parameters(), **options)
    for step in range(6):
        backward(model, step)
        optimizer.step()
        backward(other, step)
        preconditioner.step()
        adamw.step()
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)
