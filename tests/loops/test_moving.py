"""Models that are moved, cast, averaged, frozen in parts or shared by two optimizers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from nysact import NysAct

from .training import SETTINGS, assert_same, batches, dense, network, rows, train, trained


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


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_parameter_frozen_before_construction_may_be_unfrozen(frozen):
    """Once unfrozen, statistics and update are those of a layer that was never frozen."""
    model = dense(dtype=torch.float64)
    param = getattr(model[2], frozen)
    param.requires_grad_(False)
    params = list(model.parameters())
    optimizer = NysAct(model, params, **{**SETTINGS, "rank": 99, "cov_interval": 1})
    before = param.detach().clone()
    train(model, optimizer, rows(5, dtype=torch.float64))
    torch.testing.assert_close(param.detach(), before, rtol=0, atol=0)
    side = 9 if frozen == "weight" else 8
    assert optimizer.inverse("2").shape == (side, side)
    param.requires_grad_(True)
    train(model, optimizer, rows(4, seed=2, dtype=torch.float64))
    assert not torch.equal(param.detach(), before)
    assert optimizer.inverse("2").shape == (9, 9)
    assert not torch.equal(optimizer.inverse("2"), torch.eye(9, dtype=torch.float64))
