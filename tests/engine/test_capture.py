"""The hooks: their life and end, and what a copy of a model carries."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import nn

from nysact.curvature import SKETCHES

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import (
    backward,
    hooks_on,
    images,
    inverse_of,
    plain,
    same,
    set_gradients,
    state_of,
    two_layers,
    values,
)


def step(model, optimizer, seed=0):
    optimizer.zero_grad()
    model(images(seed)).square().sum().backward()
    optimizer.step()


def test_removing_the_hooks_leaves_none_and_keeps_the_factors():
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    before = optimizer.inverse("5")
    optimizer.remove_hooks()
    assert not hooks_on(model)
    step(model, optimizer, 1)
    assert torch.equal(optimizer.inverse("5"), before)
    assert optimizer.diagnostics()["5"]["refresh_age"] == 1
    optimizer.remove_hooks()


def test_foreign_hooks_stay():
    model = two_layers()
    calls = []
    model[0].register_forward_pre_hook(lambda *_: calls.append(1))
    optimizer = plain(model)
    optimizer.remove_hooks()
    model(images())
    assert calls == [1]


@pytest.mark.parametrize("late", [False, True])
def test_statistics_are_of_the_inputs_that_other_hooks_have_replaced(late):
    module = nn.Linear(4, 2).double()
    inputs, replaced = randn(5, 4), randn(7, 4, seed=1)
    if not late:
        module.register_forward_pre_hook(lambda *_: (replaced,))
    optimizer = plain(module, rank=100)
    if late:
        module.register_forward_pre_hook(lambda *_: (replaced,))
    module(inputs).sum().backward()
    optimizer.step()
    A = torch.cat([replaced, torch.ones(7, 1).double()], dim=1)
    assert error(optimizer.inverse(""), damped_inverse(A.T @ A / 7, 1.0)) < 1e-12


def test_a_forgotten_optimizer_takes_its_hooks_with_it():
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    alive = weakref.ref(optimizer)
    # Nothing refers back to it, so it goes at once, without the cycles' collector.
    gc.disable()
    try:
        del optimizer
        assert alive() is None
        assert not hooks_on(model)
    finally:
        gc.enable()


def test_an_optimizer_keeps_no_model_alive_but_its_parameters():
    model = two_layers()
    optimizer = plain(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    with pytest.raises(ValueError, match="the model is gone"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


@pytest.mark.parametrize("how", ["deepcopy", "save"])
def test_a_copy_of_a_model_is_not_observed(how):
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    # Its hooks hold neither layer nor state, which would travel with the model otherwise.
    assert len(hooks_on(twin)) == len(twin[0]._forward_hooks) * 2
    assert all(value is None for hook in hooks_on(twin) for value in vars(hook).values())
    before = state_of(optimizer)
    for seed in range(3):
        twin(images(50 + seed)).sum().backward()
    assert same(values(model), values(twin))
    optimizer.zero_grad()
    model(images(1)).sum().backward()
    optimizer.step()
    # The copy is trained by an optimizer of its own, as if there had never been another.
    fresh = plain(twin)
    assert list(fresh.layers) == list(optimizer.layers)
    step(twin, fresh)
    assert fresh.diagnostics()["0"]["refresh_age"] == 0
    assert not same(before, state_of(optimizer))


def test_what_a_copy_sees_never_reaches_the_statistics():
    runs = []
    for copied in (False, True):
        model = two_layers()
        optimizer = plain(model, inv_interval=3)
        for seed in range(4):
            if copied:
                copy.deepcopy(model)(images(50 + seed)).sum().backward()
            step(model, optimizer, seed)
        runs.append(state_of(optimizer))
    assert same(*runs)


def test_a_copy_of_the_optimizer_is_refused_with_the_remedy():
    optimizer = plain(two_layers())
    with pytest.raises(TypeError, match="state_dict"):
        copy.deepcopy(optimizer)


def test_two_optimizers_on_one_model_see_the_same():
    module = nn.Linear(4, 2).double()
    one = plain(module, [module.weight], rank=100)
    other = plain(module, rank=100, damping=0.1)
    inputs = randn(9, 4)
    backward(module, inputs)
    expected = covariance(rows(module, inputs))
    one.step()
    other.step()
    assert error(one.inverse(""), damped_inverse(expected[0, :4, :4], 1.0)) < 1e-12
    assert error(inverse_of(other, module), damped_inverse(expected, 0.1)) < 1e-12
    one.remove_hooks()
    assert len(module._forward_hooks) == 1


@pytest.mark.parametrize("sketch", SKETCHES)
def test_nothing_is_observed_while_paused(sketch):
    runs = []
    for paused in (False, True):
        model = two_layers()
        optimizer = plain(model, sketch=sketch, inv_interval=2)
        for seed in range(5):
            model(images(seed)).sum().backward()
            if paused:
                model.eval()
                with optimizer.paused(), optimizer.paused():
                    unseen = model(images(50 + seed))
                model.train()
                (0 * unseen.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        runs.append(state_of(optimizer))
    assert same(*runs)


def test_a_pause_ends_with_its_block_even_when_it_raises():
    module = nn.Linear(4, 2).double()
    optimizer = plain(module, rank=100)
    inputs = randn(9, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), optimizer.paused():
        module(randn(9, 5, seed=1))
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, inputs)), 1.0)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_steps_in_a_pause_use_the_current_factors():
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    before = optimizer.inverse("5")
    with optimizer.paused():
        step(model, optimizer, 1)
    assert torch.equal(optimizer.inverse("5"), before)
    step(model, optimizer, 2)
    assert optimizer.diagnostics()["5"]["refresh_age"] == 0


# --- a model that changes under the optimizer ------------------------------------------------


@pytest.mark.parametrize("when", ["between steps", "between windows", "before the first step"])
def test_a_model_may_be_cast_after_the_optimizer_was_built(when):
    model = two_layers(dtype=torch.float32)
    optimizer = plain(model, inv_interval=4, momentum=0.0)
    moment = {"between steps": 2, "between windows": 5, "before the first step": 0}[when]
    for seed in range(9):
        if seed == moment:
            model.double()
        dtype = model[0].weight.dtype
        optimizer.zero_grad()
        model(images(seed, dtype=dtype)).square().mean().backward()
        optimizer.step()
    for layer in (model[0], model[5]):
        state = optimizer.state[layer.weight]
        assert state["sketch"].dtype == state["basis"].dtype == torch.float64
        assert state["refreshed"].dtype == torch.int64
        assert state["refreshed"] == 8
        assert all(value.isfinite().all() for value in state.values())


def test_a_bias_may_be_frozen_and_unfrozen_later():
    module = nn.Linear(4, 2).double()
    optimizer = plain(module, rank=100)
    for index, bias in enumerate([True, False, False, True, True]):
        module.bias.requires_grad_(bias)
        module.bias.grad = None
        inputs = randn(9, 4, seed=index)
        A = covariance(rows(module, inputs))
        A = A if bias else A[:, :4, :4]
        before = values(module)
        # The forward after a change still goes by the old shape: its statistics are dropped.
        for _ in range(2):
            module.weight.grad = None
            module.bias.grad = None
            backward(module, inputs)
            optimizer.step()
        inverse = inverse_of(optimizer, module)
        assert inverse.shape == A.shape
        assert torch.equal(module.bias.detach(), before["bias"]) != bias
        if index in (0, 1, 3):
            assert error(inverse, damped_inverse(A, 1.0)) < 1e-12


def test_a_weight_may_be_frozen_and_unfrozen_later():
    model = two_layers()
    optimizer = plain(model, inv_interval=2)
    step(model, optimizer)
    model[5].requires_grad_(False)
    before = model[5].weight.detach().clone()
    for seed in (1, 2):
        step(model, optimizer, seed)
    assert torch.equal(model[5].weight.detach(), before)
    model[5].requires_grad_(True)
    for seed in (3, 4):
        step(model, optimizer, seed)
    assert not torch.equal(model[5].weight.detach(), before)
    assert optimizer.diagnostics()["5"]["refresh_age"] == 0


def test_rank_and_sketch_may_be_changed_between_steps():
    module = nn.Linear(9, 2).double()
    optimizer = plain(module, rank=3)
    group = optimizer.param_groups[0]
    for seed, (rank, sketch) in enumerate([(3, "subspace"), (5, "subspace"), (5, "columns")]):
        group["rank"], group["sketch"] = rank, sketch
        for _ in range(2):
            backward(module, randn(20, 9, seed=seed))
            optimizer.step()
        assert optimizer.diagnostics()[""]["rank"] == rank
        assert optimizer.diagnostics()[""]["eigenvalues"].shape == (1, rank)
        assert optimizer.diagnostics()[""]["refresh_age"] == 0


def test_gradients_set_by_hand_are_preconditioned_too():
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    set_gradients(model, 7)
    before, G = model[5].weight.detach().clone(), model[5].weight.grad
    G = torch.cat([G, model[5].bias.grad[:, None]], dim=1)
    optimizer.step()
    moved = 0.1 * (G @ optimizer.inverse("5"))[:, :-1]
    assert error(before - model[5].weight.detach(), moved) < 1e-12
