"""Statistics that wait are those of what the layers read, whatever is overwritten meanwhile."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nysact import NysAct
from nysact.engine.statistics import CallQueue

from ..oracles import error, randn

SETTINGS = {"lr": 0.01, "cov_interval": 1, "inv_interval": 1, "rank": 3, "damping": 0.1}


def linear():
    torch.manual_seed(0)
    return nn.Linear(6, 6)


def batch(seed=0):
    return randn(8, 6, seed=seed).float()


def inverses(optimizer):
    return torch.stack([optimizer.inverse(name) for name in optimizer.layers])


class Stream(nn.Module):
    """Blocks that add to a stream, in place or not."""

    def __init__(self, in_place=False):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.in_place = in_place

    def forward(self, inputs):
        stream = inputs.clone()
        for block in self.blocks:
            change = block(stream)
            stream = stream.add_(change) if self.in_place else stream + change
        return stream


def test_a_stream_that_is_updated_in_place_under_autocast():
    found = []
    for in_place in (False, True):
        model = Stream(in_place)
        optimizer = NysAct(model, **SETTINGS)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch()).square().mean()
        loss.backward()
        optimizer.step()
        found.append(inverses(optimizer))
    assert error(found[1], found[0]) < 1e-6


def test_an_operation_in_place_inside_a_checkpoint():
    found = []
    for in_place in (False, True):
        layer = linear()
        optimizer = NysAct(layer, **SETTINGS)

        def block(inputs, layer=layer, in_place=in_place):
            stream = inputs * 1.0
            change = layer(stream)
            return stream.add_(change) if in_place else stream + change

        checkpoint(block, batch().requires_grad_(), use_reentrant=False).sum().backward()
        optimizer.step()
        found.append(inverses(optimizer))
    assert error(found[1], found[0]) < 1e-6


def test_a_batch_that_is_refilled_before_the_step():
    found = []
    for refilled in (False, True):
        layer, inputs = linear(), batch()
        optimizer = NysAct(layer, **SETTINGS)
        params = list(layer.parameters())
        gradients = torch.autograd.grad(layer(inputs).square().mean(), params)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        if refilled:
            inputs.fill_(7.0)
        optimizer.step()
        found.append(inverses(optimizer))
    assert error(found[1], found[0]) < 1e-6


def trained():
    model = Stream()
    optimizer = NysAct(model, **SETTINGS)
    for seed in range(3):
        optimizer.zero_grad()
        model(batch(seed)).square().mean().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("limit", [0, 200])
def test_how_many_may_wait_changes_nothing(monkeypatch, limit):
    expected = inverses(trained())
    monkeypatch.setattr(CallQueue, "LIMIT", limit)
    assert torch.equal(inverses(trained()), expected)


def test_statistics_are_taken_before_the_backward_pass_ends():
    layer = linear()
    optimizer = NysAct(layer, **SETTINGS)
    loss = layer(batch()).square().mean()
    pending = optimizer.layers[""].pending
    assert not pending.sums
    loss.backward()
    assert pending.sums["sketch"].any()


def test_a_step_inside_autocast_computes_as_outside():
    found = []
    for inside in (False, True):
        model = Stream()
        optimizer = NysAct(model, **SETTINGS)
        model(batch()).square().mean().backward()
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            optimizer.step()
        found.append(torch.cat([param.detach().flatten() for param in model.parameters()]))
    assert torch.equal(*found)
