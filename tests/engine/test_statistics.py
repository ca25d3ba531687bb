"""Which rows statistics are of, over every way of calling a model."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nysact.curvature import SKETCHES

from ..oracles import Schedule, covariance, damped_inverse, error, randn, rows
from ..steps import (
    backward,
    exact,
    images,
    inverse_of,
    plain,
    same,
    set_gradients,
    state_of,
    two_layers,
)

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


SPLITS = [[6], [3, 3], [1, 2, 3], [1] * 6]


@pytest.mark.parametrize("split", SPLITS[1:], ids=str)
@every_sketch
def test_micro_batches_give_the_statistics_of_their_union(split, sketch):
    inverses = []
    for sizes in (SPLITS[0], split):
        torch.manual_seed(0)
        module = nn.Conv2d(2, 3, 3, padding=1).double()
        optimizer = plain(module, rank=4, sketch=sketch, inv_interval=2)
        for step in range(3):
            for part in randn(6, 2, 5, 5, seed=step).split(sizes):
                backward(module, part)
            optimizer.step()
            optimizer.zero_grad()
        inverses.append(optimizer.inverse(""))
    assert error(inverses[1], inverses[0]) < 1e-10


def test_calls_with_inputs_of_different_sizes_count_by_their_rows():
    module = nn.Conv2d(2, 2, 2).double()
    optimizer = exact(module)
    small, large = randn(3, 2, 3, 3), randn(2, 2, 6, 5, seed=1)
    for inputs in (small, large):
        backward(module, inputs)
    optimizer.step()
    expected = covariance(rows(module, small), rows(module, large))
    assert error(inverse_of(optimizer, module), damped_inverse(expected, 0.1)) < 1e-12


def test_a_module_called_twice_in_a_forward_counts_both_calls():
    module = nn.Linear(4, 4).double()
    optimizer = exact(module)
    inputs = randn(5, 4)
    hidden = module(inputs)
    module(hidden).sum().backward()
    expected = covariance(rows(module, inputs), rows(module, hidden.detach()))
    optimizer.step()
    assert error(inverse_of(optimizer, module), damped_inverse(expected, 0.1)) < 1e-12


def test_modules_that_share_a_weight_share_its_statistics():
    first, second = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    second.weight, second.bias = first.weight, first.bias
    model = nn.ModuleList([first, second])
    optimizer = exact(model)
    one, two = randn(5, 4), randn(3, 4, seed=1)
    backward(first, one)
    backward(second, two)
    optimizer.step()
    expected = damped_inverse(covariance(rows(first, one), rows(second, two)), 0.1)
    assert error(inverse_of(optimizer, first, "0"), expected) < 1e-12
    assert torch.equal(optimizer.inverse("0"), optimizer.inverse("1"))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_recomputed_forward_counts_once(use_reentrant):
    module = nn.Linear(4, 4).double()
    optimizer = exact(module)
    once, twice = randn(5, 4), randn(7, 4, seed=1)
    for inputs in (once, twice):
        inputs = inputs.clone().requires_grad_()
        checkpoint(module, inputs, use_reentrant=use_reentrant).sum().backward()
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, once), rows(module, twice)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_a_layer_unused_in_a_step_keeps_its_statistics_and_factors():
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)]).double()
    optimizer = exact(model, inv_interval=4, stat_decay=0.5)
    expected = [Schedule(0.5, 1, 4, restarts=False) for _ in model]
    for step in range(10):
        optimizer.zero_grad()
        for index, layer in enumerate(model):
            inputs = randn(5, 4, seed=10 * step + index)
            used = index == 0 or step in (0, 2, 5, 7)
            if used:
                backward(layer, inputs)
            expected[index].update(*([rows(layer, inputs)] if used else []))
        optimizer.step()
        for index, layer in enumerate(model):
            inverse = inverse_of(optimizer, layer, str(index))
            assert error(inverse, expected[index].inverse(0.1)) < 1e-12


@pytest.mark.filterwarnings("ignore:1 layer.* had gradients for two windows:UserWarning")
def test_a_layer_that_is_never_used_gets_the_plain_update():
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)]).double()
    optimizer = exact(model)
    for step in range(3):
        set_gradients(model, step)
        backward(model[0], randn(5, 4, seed=step))
        before, G = model[1].weight.detach().clone(), model[1].weight.grad
        optimizer.step()
        assert torch.equal(model[1].weight.detach(), torch.add(before, G, alpha=-0.1))
    assert torch.equal(optimizer.inverse("1"), torch.eye(5, dtype=torch.float64))
    assert optimizer.diagnostics()["1"]["refresh_age"] is None


@pytest.mark.parametrize("first", [1, 2, 3, 5, 6])
def test_a_layer_used_late_is_preconditioned_from_its_first_data(first):
    module = nn.Linear(4, 2).double()
    model = nn.ModuleList([nn.Linear(4, 2).double(), module])
    options = {"cov_interval": 2, "inv_interval": 6}
    optimizer = exact(model, stat_decay=0.5, **options)
    expected = Schedule(0.5, **options, restarts=False)
    for step in range(14):
        inputs = randn(5, 4, seed=step)
        backward(model[0], inputs)
        if step >= first:
            backward(module, inputs)
        expected.update(*([rows(module, inputs)] if step >= first else []))
        optimizer.step()
        optimizer.zero_grad()
        if step >= first + first % 2:
            inverse = inverse_of(optimizer, module, "1")
            assert error(inverse, expected.inverse(0.1)) < 1e-12


def test_a_gradient_of_none_leaves_the_parameter_and_takes_no_statistics():
    module = nn.Linear(4, 2).double()
    optimizer = exact(module)
    before = module.weight.detach().clone()
    backward(module, randn(5, 4))
    module.zero_grad()
    optimizer.step()
    assert torch.equal(module.weight.detach(), before)
    assert optimizer.diagnostics()[""]["refresh_age"] is None


def test_a_bias_without_gradient_counts_as_zero():
    module = nn.Linear(4, 2).double()
    optimizer = exact(module)
    before = {name: param.detach().clone() for name, param in module.named_parameters()}
    backward(module, randn(5, 4))
    module.bias.grad = None
    optimizer.step()
    G = torch.cat([module.weight.grad, torch.zeros(2, 1).double()], dim=1)
    moved = 0.1 * G @ optimizer.inverse("")
    assert error(before["weight"] - module.weight.detach(), moved[:, :4]) < 1e-12
    assert torch.equal(module.bias.detach(), before["bias"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_forwards_without_gradients_are_not_observed(mode):
    runs = []
    for extra in (False, True):
        model = two_layers().eval()
        optimizer = plain(model, inv_interval=2)
        for step in range(4):
            model(images(step)).sum().backward()
            if extra:
                with mode():
                    model(images(100 + step))
            optimizer.step()
            optimizer.zero_grad()
        runs.append(state_of(optimizer))
    assert same(*runs)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_an_empty_batch_counts_for_nothing(shape):
    module = nn.Linear(4, 2).double()
    optimizer = exact(module)
    backward(module, torch.zeros(shape, dtype=torch.float64))
    inputs = randn(5, 4)
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_gradients_may_be_reset_between_forward_and_backward():
    module = nn.Linear(4, 2).double()
    optimizer = exact(module, stat_decay=0.0)
    for step in range(3):
        inputs = randn(5, 4, seed=step)
        loss = module(inputs).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
        assert error(inverse_of(optimizer, module), expected) < 1e-12
