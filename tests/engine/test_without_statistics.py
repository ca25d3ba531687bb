"""Layers that lose their weight, or whose gradients never bring statistics, say so."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from ..oracles import randn
from ..steps import plain, set_gradients, values

BUILT = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def build(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return model, plain(model, rank=3, **options)


def step(model, optimizer, seed=0):
    optimizer.zero_grad()
    model(randn(8, 6, seed=seed)).square().mean().backward()
    optimizer.step()


REPLACEMENTS = {
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.5),
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
}


@pytest.mark.parametrize("cov_interval", [1, 3])
@pytest.mark.parametrize("how", REPLACEMENTS)
def test_a_layer_whose_weight_is_replaced_gets_the_plain_update(how, cov_interval):
    model, optimizer = build(cov_interval=cov_interval, inv_interval=3)
    for seed in range(2):
        step(model, optimizer, seed)
    REPLACEMENTS[how](model[0])
    with pytest.warns(UserWarning, match=r"1 layer\(s\) had their weights pruned.*'0'"):
        step(model, optimizer, 2)
    assert "pruned or parametrised" in optimizer.skipped["0"]
    assert list(optimizer.layers) == ["2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3, 7):
            before = values(model)
            step(model, optimizer, seed)
    assert optimizer.diagnostics()["2"]["refresh_age"] == 0
    bias = model[0].bias
    assert torch.equal(before["0.bias"] - 0.1 * bias.grad, bias)
    # The state is that of an optimizer of the pruned model.
    assert not any(
        "sketch" in state for p, state in optimizer.state.items() if p is not model[2].weight
    )
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def test_a_model_whose_last_layer_is_replaced_is_refused_with_the_remedy():
    module = nn.Linear(4, 2).double()
    optimizer = plain(module)
    prune.l1_unstructured(module, "weight", 0.5)
    with (
        pytest.warns(UserWarning, match="pruned"),
        pytest.raises(RuntimeError, match="build the optimizer again"),
    ):
        optimizer.step()


def paused(model, optimizer, seed):
    with optimizer.paused():
        model(randn(8, 6, seed=seed)).square().mean().backward()


def through_a_copy(model, optimizer, seed):
    twin = copy.deepcopy(model)
    twin(randn(8, 6, seed=seed)).square().mean().backward()
    for param, other in zip(model.parameters(), twin.parameters(), strict=True):
        param.grad = other.grad


def by_hand(model, optimizer, seed):
    model(randn(8, 6, seed=seed))
    set_gradients(model, seed)


@pytest.mark.parametrize("gradients", [paused, through_a_copy, by_hand])
def test_layers_without_factors_after_two_windows_are_named_once(gradients):
    model, optimizer = build(inv_interval=3)
    seen = []
    for seed in range(12):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            optimizer.zero_grad()
            gradients(model, optimizer, seed)
            optimizer.step()
        seen += [(seed, str(each.message)) for each in found]
    ((when, message),) = seen
    assert when == 6
    assert "2 layer(s) had gradients for two windows" in message
    assert "'0', '2'" in message
    assert "paused()" in message


def test_a_layer_that_joins_late_or_has_no_gradient_is_not_named():
    model, optimizer = build(inv_interval=2)
    model[0].requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(9):
            if seed == 5:
                model[0].requires_grad_(True)
            step(model, optimizer, seed)
