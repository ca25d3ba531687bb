"""The engine alone, in front of another optimizer."""

import pytest
import torch
from torch import nn

from nysact import Preconditioner
from nysact.curvature import SKETCHES

from ..oracles import error, randn
from ..steps import (
    backward,
    gradients,
    images,
    joint_gradient,
    plain,
    same,
    two_layers,
    values,
)

ENGINE = {"rank": 3, "cov_interval": 1, "inv_interval": 2, "subsample": 1}


@pytest.mark.parametrize("sketch", SKETCHES)
def test_gradients_are_overwritten_by_the_preconditioned_and_parameters_left(sketch):
    torch.manual_seed(0)
    module = nn.Conv2d(4, 4, 3, groups=2).double()
    engine = Preconditioner(module, sketch=sketch, **ENGINE)
    for seed in range(4):
        module.zero_grad()
        backward(module, randn(3, 4, 5, 5, seed=seed), seed)
        before, G = values(module), joint_gradient(module)
        identity = module.weight.grad
        engine.step()
        assert error(joint_gradient(module), G @ engine.inverse("")) < 1e-12
        assert module.weight.grad is identity
        assert same(values(module), before)


def test_parameters_without_preconditioner_keep_their_gradient():
    model = two_layers()
    engine = Preconditioner(model, **ENGINE)
    model(images()).square().sum().backward()
    before = gradients(model)
    engine.step()
    after = gradients(model)
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["0.bias"], before["0.bias"])


def test_with_sgd_behind_it_is_nysact():
    ours, theirs = two_layers(), two_layers()
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
    optimizer = plain(ours, **{**ENGINE, **settings})
    engine = Preconditioner(theirs, **ENGINE)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, **settings)
    for seed in range(6):
        for model, steppers in ((ours, [optimizer]), (theirs, [engine, sgd])):
            model.zero_grad()
            model(images(seed)).square().mean().backward()
            for stepper in steppers:
                stepper.step()
        assert same(values(ours), values(theirs))


def test_adamw_takes_the_preconditioned_gradients():
    ours, theirs = two_layers(), two_layers()
    engine = Preconditioner(ours, **ENGINE)
    adam, reference = (torch.optim.AdamW(m.parameters(), lr=0.01) for m in (ours, theirs))
    for seed in range(4):
        ours.zero_grad()
        ours(images(seed)).square().mean().backward()
        raw = gradients(ours)
        engine.step()
        assert not same(gradients(ours), raw)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = mine.grad.clone()
        adam.step()
        reference.step()
        assert same(values(ours), values(theirs))


def test_it_keeps_no_momentum():
    model = two_layers()
    engine = Preconditioner(model, **ENGINE)
    model(images()).sum().backward()
    engine.step()
    assert all("momentum_buffer" not in state for state in engine.state.values())


def test_a_layer_without_gradient_stays_without():
    model = two_layers()
    engine = Preconditioner(model, **ENGINE)
    model(images()).sum().backward()
    model[5].weight.grad = None
    bias = model[5].bias.grad.clone()
    engine.step()
    assert model[5].weight.grad is None
    assert torch.equal(model[5].bias.grad, bias)
