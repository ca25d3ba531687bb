"""Failing factorisations, the size of the state, and that nothing large is ever made."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nysact.curvature import SKETCHES

from ..oracles import covariance, damped_inverse, error, randn, rows
from .steps import backward, inverse_of, plain, set_gradients

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


# --- failing factorisations ------------------------------------------------------------------


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


@every_sketch
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

    # The next window begins anew and clears the count.
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


# --- sizes -----------------------------------------------------------------------------------


def resnet110():
    """The convolutions and the classifier of a ResNet-110 for images of 32 x 32."""
    widths = [(3, 16), *[(16, 16)] * 36, (16, 32), *[(32, 32)] * 35, (32, 64), *[(64, 64)] * 35]
    convolutions = [nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in widths]
    return nn.ModuleList([*convolutions, nn.Linear(64, 10)])


@every_sketch
def test_the_state_of_a_resnet110_takes_at_most_4_mebibytes(sketch):
    model = resnet110()
    optimizer = plain(model, rank=10, sketch=sketch, momentum=0.9)
    set_gradients(model)
    optimizer.step()
    # Views of one storage count what they show; the storages hold nothing else.
    tensors = [
        tensor
        for state in optimizer.state.values()
        for name, tensor in state.items()
        if name != "momentum_buffer"
    ]
    shown = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert 2**20 < shown <= 4 * 2**20
    assert sum(storages.values()) <= 4 * 2**20


@every_sketch
@pytest.mark.parametrize("groups", [1, 2])
def test_a_layers_state_is_at_most_two_matrices_of_d_by_r(sketch, groups):
    module = nn.Conv2d(8, 4, 3, groups=groups)
    optimizer = plain(module, rank=5, sketch=sketch, momentum=0.9)
    module(torch.ones(2, 8, 5, 5)).sum().backward()
    optimizer.step()
    d = 8 // groups * 9 + 1
    state = optimizer.state[module.weight]
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    numels = sorted(v.numel() for name, v in state.items() if name != "momentum_buffer")
    assert numels[-2:] == [groups * d * 5] * 2
    assert all(size <= groups * 5 * 5 for size in numels[:-2])
    assert optimizer.state[module.bias].keys() <= {"momentum_buffer"}


class Largest(TorchDispatchMode):
    """Notes the sizes of all tensors that come into being."""

    def __init__(self):
        super().__init__()
        self.numels = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numels += [leaf.numel() for leaf in leaves]
        return result


@every_sketch
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_nothing_of_size_d_by_d_nor_unfolded_patches_is_made(sketch, padding_mode, groups):
    module = nn.Conv2d(64, 4, 3, padding=1, padding_mode=padding_mode, groups=groups)
    optimizer = plain(module, rank=10, sketch=sketch)
    inputs = torch.randn(4, 64, 8, 8)
    d, padded = 64 // groups * 9, 4 * 64 * 10 * 10
    patches = 4 * 8 * 8 * 64 * 9
    with Largest() as seen:
        for _ in range(2):
            module(inputs).sum().backward()
            optimizer.step()
    assert len(seen.numels) > 50
    assert max(seen.numels) <= padded < min(groups * d * d, patches) / 3


@every_sketch
def test_nothing_of_size_d_by_d_is_made_for_a_linear_layer(sketch):
    module = nn.Linear(500, 3)
    optimizer = plain(module, rank=10, sketch=sketch)
    with Largest() as seen:
        for _ in range(2):
            module(torch.ones(20, 500) + torch.randn(20, 500)).sum().backward()
            optimizer.step()
    assert max(seen.numels) <= 20 * 500
