"""Failing factorisations: the factors that stay in use, the warning and the error."""

import warnings

import pytest
import torch
from torch import nn

from nysact.curvature import SKETCHES

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import backward, inverse_of, plain


@pytest.fixture
def cholesky(monkeypatch):
    """A switch that makes the factorisation report failure for some of a stack's layers."""
    true, failing = torch.linalg.cholesky_ex, set()

    def patched(matrix, **options):
        factor, info = true(matrix, **options)
        if len(info) > 1:  # of a whole stack, not of one layer that is looked at
            info[list(failing)] = 1
        return factor, info

    monkeypatch.setattr(torch.linalg, "cholesky_ex", patched)
    return failing


def build(**options):
    torch.manual_seed(0)
    model = nn.ModuleDict({"good": nn.Linear(9, 2), "bad": nn.Linear(9, 2)}).double()
    return model, plain(model, rank=4, **options)


def step(model, optimizer, seed):
    optimizer.zero_grad()
    for layer in model.values():
        backward(layer, randn(20, 9, seed=seed))
    optimizer.step()


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_failed_factorisation_keeps_the_previous_factors_and_warns(cholesky, sketch):
    model, optimizer = build(sketch=sketch)
    step(model, optimizer, 0)
    good, bad = optimizer.inverse("good"), optimizer.inverse("bad")
    cholesky.add(1)
    with pytest.warns(UserWarning, match=r"'bad' failed 1 time.*previous factors stay"):
        step(model, optimizer, 1)
    assert torch.equal(optimizer.inverse("bad"), bad)
    assert not torch.equal(optimizer.inverse("good"), good)
    known = optimizer.diagnostics()
    assert (known["bad"]["failures"], known["bad"]["refresh_age"]) == (1, 1)
    assert (known["good"]["failures"], known["good"]["refresh_age"]) == (0, 0)

    # The next window restarts and clears the count.
    cholesky.clear()
    step(model, optimizer, 2)
    known = optimizer.diagnostics()
    assert (known["bad"]["failures"], known["bad"]["refresh_age"]) == (0, 0)
    assert not torch.equal(optimizer.inverse("bad"), bad)


def test_a_first_factorisation_that_fails_leaves_the_gradient_as_it_is(cholesky):
    model, optimizer = build()
    cholesky.add(1)
    before = model["bad"].weight.detach().clone()
    with pytest.warns(UserWarning, match="'bad' failed 1 time"):
        step(model, optimizer, 0)
    assert torch.equal(optimizer.inverse("bad"), torch.eye(10, dtype=torch.float64))
    assert error(before - model["bad"].weight.detach(), 0.1 * model["bad"].weight.grad) < 1e-12


@pytest.mark.parametrize("max_failures", [0, 1, 3])
def test_too_many_failures_in_a_row_raise_with_layer_values_and_remedy(cholesky, max_failures):
    model, optimizer = build(max_failures=max_failures)
    cholesky.add(1)
    for count in range(max_failures):
        with pytest.warns(UserWarning, match=rf"'bad' failed {count + 1} time"):
            step(model, optimizer, count)
    message = (
        rf"'bad' failed {max_failures + 1} time\(s\) in a row.*\d\.\d"
        rf".*max_failures={max_failures} .*exclude=\['bad'\]"
    )
    with pytest.raises(RuntimeError, match=message):
        step(model, optimizer, max_failures)


def test_a_failure_is_reported_once_and_not_again_while_there_is_no_data(cholesky):
    model, optimizer = build()
    cholesky.add(1)
    with pytest.warns(UserWarning, match="'bad' failed 1 time"):
        step(model, optimizer, 0)
    for seed in (1, 2):
        backward(model["good"], randn(20, 9, seed=seed))
        optimizer.step()
    assert optimizer.diagnostics()["bad"]["failures"] == 1


def test_failures_that_are_not_in_a_row_never_raise(cholesky):
    model, optimizer = build(max_failures=1)
    for seed in range(6):
        cholesky.clear()
        if seed % 2:
            cholesky.add(1)
            with pytest.warns(UserWarning, match="failed 1 time"):
                step(model, optimizer, seed)
        else:
            step(model, optimizer, seed)
    assert optimizer.diagnostics()["bad"]["failures"] == 1


def test_a_second_try_with_a_larger_shift_is_made_before_a_failure(monkeypatch):
    true, cores = torch.linalg.cholesky_ex, []

    def patched(matrix, **options):
        factor, info = true(matrix, **options)
        # The first core is that of the first shift; those of its Cholesky QR follow.
        cores.append(matrix)
        return factor, torch.ones_like(info) if len(cores) == 1 else info

    monkeypatch.setattr(torch.linalg, "cholesky_ex", patched)
    module = nn.Linear(9, 2).double()
    optimizer = plain(module, rank=4, damping=0.1)
    # Of rank 3 and of 4 with the bias: the larger shift must not be seen in the outcome.
    inputs = randn(20, 3) @ randn(3, 9, seed=1)
    expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
    backward(module, inputs)
    optimizer.step()
    assert float(optimizer.state[module.weight]["shift"]) > 1e-12
    assert optimizer.diagnostics()[""]["failures"] == 0
    assert error(inverse_of(optimizer, module), expected) < 1e-6


def test_a_factorisation_that_succeeds_says_nothing():
    model, optimizer = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            step(model, optimizer, seed)


def test_a_long_memory_restarts_where_the_factorisation_failed(cholesky):
    model, optimizer = build(memory="long", stat_decay=0.5)
    step(model, optimizer, 0)
    cholesky.add(1)
    with pytest.warns(UserWarning, match="'bad' failed"):
        step(model, optimizer, 1)
    assert not optimizer.state[model["bad"].weight]["sketch"].any()
    assert not optimizer.state[model["bad"].weight]["rows"].any()
    assert optimizer.state[model["good"].weight]["sketch"].any()
