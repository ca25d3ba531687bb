"""Calls that were dropped or that no gradient came through leave no trace."""

import gc

import pytest
import torch
from torch import nn

from nysact.engine.statistics import CallStatistics
from nysact.optim.family import SKFAC

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import backward, inverse_of, plain, set_gradients


def linear(**options):
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()
    return module, plain(module, rank=4, damping=0.1, **options)


def check_counted(optimizer, module, *inputs):
    """A step averages over these inputs and no others."""
    optimizer.step()
    expected = damped_inverse(covariance(*(rows(module, each) for each in inputs)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_a_gradient_that_is_only_looked_at_counts_nothing_beside_one_of_backward():
    module, optimizer = linear()
    used, looked_at = randn(4, 3), randn(5, 3, seed=1)
    backward(module, used)
    torch.autograd.grad(module(looked_at).sum(), module.weight)
    check_counted(optimizer, module, used)


def test_a_pass_to_the_inputs_counts_nothing_beside_an_assigned_gradient():
    module, optimizer = linear()
    assigned, penalised = randn(4, 3), randn(5, 3, seed=1).requires_grad_()
    torch.autograd.grad(module(penalised).sum(), penalised)
    params = list(module.parameters())
    found = torch.autograd.grad(module(assigned).sum(), params)
    for param, gradient in zip(params, found, strict=True):
        param.grad = gradient
    check_counted(optimizer, module, assigned)


def test_a_reset_drops_gradients_that_were_not_assigned_yet():
    module, optimizer = linear()
    torch.autograd.grad(module(randn(4, 3)).sum(), module.weight)
    optimizer.zero_grad()
    set_gradients(module)
    optimizer.step()
    assert optimizer.diagnostics()[""]["refresh_age"] is None


@pytest.mark.parametrize("dropped", [1, 3])
def test_a_dropped_call_changes_nothing_of_the_samples_that_are_taken(dropped):
    found = []
    for samples in (0, dropped):
        module, optimizer = linear(subsample=4)
        if samples:
            backward(module, randn(samples, 3, seed=1))
            optimizer.zero_grad()
        backward(module, randn(8, 3))
        optimizer.step()
        found.append(optimizer.inverse(""))
    assert torch.equal(*found)


def test_a_dropped_call_moves_no_later_call_to_other_rows_of_a_sketch():
    found = []
    for dropped in (0, 3):
        torch.manual_seed(0)
        module = nn.Linear(3, 2).double()
        optimizer = SKFAC(module, lr=0.1, rank=2, damping=0.1, cov_interval=1, inv_interval=1)
        if dropped:
            backward(module, randn(dropped, 3, seed=1))
            optimizer.zero_grad()
        backward(module, randn(5, 3))
        optimizer.step()
        found.append(module.weight.detach().clone())
    assert torch.equal(*found)


def captured():
    return [each for each in gc.get_objects() if type(each) is CallStatistics]


@pytest.mark.parametrize("retain", [False, True])
def test_sums_are_freed_with_the_graph_though_the_loss_lives_on(retain):
    module, _optimizer = linear()
    before = captured()  # of other tests, perhaps
    loss = module(randn(4, 3)).sum()
    loss.backward(retain_graph=retain)
    (call,) = [each for each in captured() if not any(each is other for other in before)]
    assert bool(call.sums) == retain
    del loss


@pytest.mark.parametrize("way", ["model.zero_grad", "zero_", "foreach"])
def test_gradients_that_were_set_to_zero_drop_their_calls(way):
    module, optimizer = linear()
    skipped, used = randn(5, 3, seed=1), randn(4, 3)
    backward(module, skipped)
    if way == "model.zero_grad":
        module.zero_grad(set_to_none=False)
    elif way == "zero_":
        module.weight.grad.zero_()
    else:
        torch._foreach_zero_([param.grad for param in module.parameters()])
    backward(module, used)
    check_counted(optimizer, module, used)


def test_gradients_that_were_changed_keep_their_calls():
    module, optimizer = linear()
    batches = randn(4, 3), randn(5, 3, seed=1)
    for inputs in batches:
        backward(module, inputs)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
    check_counted(optimizer, module, *batches)
