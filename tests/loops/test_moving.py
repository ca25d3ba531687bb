"""Models that are moved, cast, copied, pickled or averaged, and hooks that go away."""

import copy
import gc
import io
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from nysact import NysAct, Preconditioner

from .training import SETTINGS, assert_same, batches, dense, learned, network, rows, train, trained


def hooks(model):
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()
    ) + sum(
        len(getattr(param, slot) or ())
        for param in model.parameters()
        for slot in ("_backward_hooks", "_post_accumulate_grad_hooks")
    )


def frozen_copy(optimizer):
    """A mark of all that observing a forward may change."""
    pending = [
        {name: value.clone() for name, value in layer.pending.sums.items()}
        for layer in optimizer.layers.values()
    ]
    return learned(optimizer), pending


def assert_untouched(optimizer, mark):
    assert not any(layer.pending.has_calls for layer in optimizer.layers.values())
    torch.testing.assert_close(frozen_copy(optimizer), mark, rtol=0, atol=0)


@pytest.mark.parametrize("when", [0, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_model_cast_after_construction(dtype, when):
    """Training goes on with statistics in the new precision, float32 at least."""
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, batches(when))
    model.to(dtype)
    losses = train(model, optimizer, [batches(1, dtype=dtype)[0]] * 12)
    assert losses[-1] < 0.9 * losses[0]
    for layer in optimizer.layers.values():
        expected = torch.promote_types(dtype, torch.float32)
        assert optimizer.inverse(layer.name).dtype == expected
        assert layer.weight.dtype == dtype


def test_a_model_cast_to_float64_learns_what_one_built_so_does():
    cast, born = network(), network(dtype=torch.float64)
    optimizer, reference = NysAct(cast, **SETTINGS), NysAct(born, **SETTINGS)
    cast.double()
    data = batches(9, dtype=torch.float64)
    train(cast, optimizer, data)
    train(born, reference, data)
    # The first probes were drawn in float32.
    assert_same(optimizer, reference, tolerance=1e-5)


def test_statistics_survive_a_cast_in_the_middle_of_a_window():
    """A model cast up and back down, between two steps, hasn't changed."""
    model, still = network(), network()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(still, **SETTINGS)
    data = batches(11)
    train(model, optimizer, data[:7])
    train(still, reference, data[:7])
    for state in optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].double()
    model.double()
    train(model, optimizer, [(x.double(), y) for x, y in data[7:]])
    train(still, reference, data[7:])
    for name in optimizer.layers:
        actual, expected = optimizer.inverse(name), reference.inverse(name).double()
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_a_model_made_without_memory_and_materialised_before_the_optimizer():
    with torch.device("meta"):
        empty = network()
    empty.to_empty(device="cpu")
    empty.load_state_dict(network().state_dict())
    model = network()
    data = batches(6)
    assert_same(trained(empty, data), trained(model, data))


@pytest.mark.cuda
@pytest.mark.parametrize("when", [0, 3, 4])
def test_a_model_moved_after_construction(when):
    data = batches(9, dtype=torch.float64)
    moved, still = network(dtype=torch.float64), network(dtype=torch.float64)
    optimizer, reference = NysAct(moved, **SETTINGS), NysAct(still, **SETTINGS)
    train(moved, optimizer, data[:when])
    train(still, reference, data)
    moved.cuda()
    for state in optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].cuda()
    train(moved, optimizer, [(x.cuda(), y.cuda()) for x, y in data[when:]])
    for name in optimizer.layers:
        assert optimizer.inverse(name).device.type == "cuda"
        torch.testing.assert_close(optimizer.inverse(name).cpu(), reference.inverse(name))


# --- copies -------------------------------------------------------------------------------------


def deepcopied(model):
    return copy.deepcopy(model)


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged(model):
    average = AveragedModel(model)
    average.update_parameters(model)
    return average


def moving_average(model):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.update_parameters(model)
    average.update_parameters(model)
    return average


@pytest.mark.parametrize("make", [deepcopied, pickled, averaged, moving_average])
def test_a_copy_of_the_model_is_not_observed(make):
    model = network()
    optimizer = trained(model, batches(4))
    inputs, targets = batches(1, seed=9)[0]
    mark = frozen_copy(optimizer)
    clone = make(model)
    F.cross_entropy(clone(inputs), targets).backward()
    assert_untouched(optimizer, mark)
    optimizer.step()
    F.cross_entropy(model(inputs), targets).backward()
    assert all(
        layer.pending.has_calls or not layer.pending.window.capturing
        for layer in optimizer.layers.values()
    )


@pytest.mark.parametrize("make", [deepcopied, pickled])
def test_a_copy_of_the_model_is_trained_by_an_optimizer_of_its_own(make):
    model = network()
    optimizer = trained(model, batches(4))
    clone = make(model)
    data = batches(6, seed=3)
    second = trained(clone, data)
    optimizer.remove_hooks()
    assert_same(trained(model, data), second)


def test_averaging_weights_while_training_changes_nothing():
    model, alone = network(), network()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    average = AveragedModel(model)
    for batch in batches(9):
        train(model, optimizer, [batch])
        average.update_parameters(model)
        update_bn([batch[0]], average)
        train(alone, reference, [batch])
    assert_same(optimizer, reference)


# --- several optimizers, and none ---------------------------------------------------------------


def test_two_optimizers_on_one_model_observe_it_each():
    """One for each half, as discriminative learning rates or alternating training have it."""
    model, alone = dense(), dense()
    first = NysAct(model, model[0].parameters(), **SETTINGS)
    second = NysAct(model, [*model[2].parameters(), *model[4].parameters()], **SETTINGS)
    reference = NysAct(alone, **SETTINGS)
    for inputs, targets in rows(9):
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        first.step()
        second.step()
        train(alone, reference, [(inputs, targets)])
    assert set(first.layers) == {"0"}
    assert set(second.layers) == {"2", "4"}
    for mine, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_two_optimizers_of_the_same_layers_keep_their_own_statistics():
    model = dense()
    fine = Preconditioner(model, rank=8, cov_interval=1, inv_interval=1)
    coarse = Preconditioner(model, rank=2, cov_interval=2, inv_interval=4)
    for inputs, targets in rows(3):
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        fine.step()
        coarse.step()
    assert fine.diagnostics()["2"]["eigenvalues"].shape == (1, 8)
    assert coarse.diagnostics()["2"]["eigenvalues"].shape == (1, 2)
    fine.remove_hooks()
    # The other one's: on the modules always, on the weights before steps with statistics.
    assert hooks(model) == 3
    coarse.step()
    assert hooks(model) == 3 * 3


@pytest.mark.parametrize("steps", [0, 3, 4])
def test_an_optimizer_that_is_forgotten_leaves_no_hook(steps):
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, batches(steps))
    engine = weakref.ref(optimizer.engine)
    assert hooks(model) > 0
    model.zero_grad()
    del optimizer
    gc.collect()
    assert engine() is None
    assert hooks(model) == 0


def test_an_optimizer_does_not_keep_its_model_alive_through_hooks_alone():
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    reference = weakref.ref(model)
    weight = optimizer.layers["0"].weight
    del model
    gc.collect()
    assert reference() is None
    assert weight.shape == (4, 1, 3, 3)


def test_removed_hooks_keep_the_current_factors():
    model = dense(dtype=torch.float64)
    data = rows(9, dtype=torch.float64)
    optimizer = trained(model, data[:4])
    inverse = optimizer.inverse("2")
    optimizer.remove_hooks()
    optimizer.remove_hooks()
    assert hooks(model) == 0
    before = model[2].weight.detach().clone()
    train(model, optimizer, data[4:])
    torch.testing.assert_close(optimizer.inverse("2"), inverse, rtol=0, atol=0)
    assert not torch.equal(model[2].weight, before)


# --- forwards that don't count ------------------------------------------------------------------


def under_no_grad(model, optimizer, inputs):
    with torch.no_grad():
        model(inputs)


def under_inference_mode(model, optimizer, inputs):
    with torch.inference_mode():
        model(inputs)


def validating(model, optimizer, inputs):
    model.eval()
    with torch.no_grad():
        model(inputs)
    model.train()


def while_paused(model, optimizer, inputs):
    with optimizer.paused():
        (0 * model(inputs).sum()).backward()


def while_paused_twice(model, optimizer, inputs):
    with optimizer.paused():
        with optimizer.paused():
            first = model(inputs)
        second = model(inputs)
    (0 * (first + second).sum()).backward()


UNSEEN = [under_no_grad, under_inference_mode, validating, while_paused, while_paused_twice]


@pytest.mark.parametrize("look", UNSEEN)
def test_a_forward_that_does_not_count_changes_nothing(look):
    model, alone = network(), network()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    other = batches(1, seed=7)[0][0]
    for inputs, targets in batches(9):
        look(model, optimizer, other)
        loss = F.cross_entropy(model(inputs), targets)
        look(model, optimizer, other)
        loss.backward()
        look(model, optimizer, other)
        optimizer.step()
        optimizer.zero_grad()
        train(alone, reference, [(inputs, targets)])
    assert_same(optimizer, reference)


def test_modules_in_eval_mode_are_observed_where_gradients_are_on():
    data = batches(6)
    tuned, trained_ = network(), network()
    tuned.eval()
    # Without dropout or batch statistics the mode makes no difference.
    assert_same(trained(tuned, data), trained(trained_, data))


def test_parts_of_a_model_under_no_grad_are_not_observed():
    class HalfFrozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = dense()

        def forward(self, inputs):
            with torch.no_grad():
                inputs = self.layers[:2](inputs)
            return self.layers[2:](inputs)

    model = HalfFrozen()
    optimizer = trained(model, rows(5))
    ages = {name: known["refresh_age"] for name, known in optimizer.diagnostics().items()}
    assert ages == {"layers.0": None, "layers.2": 0, "layers.4": 0}
