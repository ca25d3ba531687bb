"""Weights used by several modules or in several calls, and layers that come and go."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact import NysAct

from .training import SETTINGS, dense, rows, train

EXACT = {"rank": 99, "weight_decay": 0.0, "momentum": 0.0, "lr": 1.0}


def with_constant(inputs):
    return F.pad(inputs.detach().flatten(0, -2), (0, 1), value=1.0)


def expected_inverse(*blocks):
    """Damped inverse of the covariance of all rows, taken as one batch."""
    every = torch.cat(blocks)
    covariance = every.T @ every / len(every)
    return torch.linalg.inv(covariance + torch.eye(len(covariance)).to(covariance))


class Tied(nn.Module):
    """Two linear layers with one weight; their biases are one, two or none."""

    def __init__(self, biases):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 6, bias=biases > 0)
        self.second = nn.Linear(6, 6, bias=biases > 0)
        self.second.weight = self.first.weight
        if biases == 1:
            self.second.bias = self.first.bias
        self.double()

    def forward(self, inputs):
        return self.second(torch.tanh(self.first(inputs)))


@pytest.mark.parametrize("biases", [0, 1, 2])
def test_a_tied_weight_pools_its_uses_and_is_preconditioned_once(biases):
    inputs, _ = rows(1, dtype=torch.float64)[0]
    model = Tied(biases)
    optimizer = NysAct(model, **EXACT)
    assert set(optimizer.layers) == {"first", "second"}
    assert optimizer.layers["first"] is optimizer.layers["second"]
    model(inputs).square().sum().backward()
    with torch.no_grad():
        blocks = [inputs, torch.tanh(model.first(inputs))]
    gradient, before = model.first.weight.grad, model.first.weight.detach().clone()
    if biases == 1:
        blocks = [with_constant(block) for block in blocks]
        gradient = torch.cat([gradient, model.first.bias.grad.unsqueeze(1)], 1)
    optimizer.step()
    inverse = expected_inverse(*blocks)
    torch.testing.assert_close(optimizer.inverse("first"), inverse)
    torch.testing.assert_close(before - model.first.weight, (gradient @ inverse)[:, :6])


def test_biases_of_modules_with_a_tied_weight_get_the_plain_update_if_they_differ():
    inputs, _ = rows(1, dtype=torch.float64)[0]
    model = Tied(2)
    optimizer = NysAct(model, **EXACT)
    model(inputs).square().sum().backward()
    before = [model.first.bias.detach().clone(), model.second.bias.detach().clone()]
    optimizer.step()
    torch.testing.assert_close(before[0] - model.first.bias, model.first.bias.grad)
    torch.testing.assert_close(before[1] - model.second.bias, model.second.bias.grad)


def test_a_weight_tied_with_an_embedding_is_skipped_with_a_reason():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7, bias=False))
    model[2].weight = model[0].weight
    optimizer = NysAct(model, **EXACT)
    assert set(optimizer.layers) == {"1"}
    assert "shared with '0'" in optimizer.skipped["2"]
    before = model[2].weight.detach().clone()
    F.cross_entropy(model(torch.arange(7)), torch.arange(7)).backward()
    optimizer.step()
    torch.testing.assert_close(before - model[2].weight, model[2].weight.grad)


def test_a_weight_tied_between_layouts_is_skipped_with_a_reason():
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(6, 4), nn.ConvTranspose1d(4, 6, 1), nn.Linear(4, 2)])
    model[1].weight = nn.Parameter(torch.randn(4, 6, 1))
    model.append(nn.Conv1d(6, 4, 1))
    model[3].weight = model[1].weight
    optimizer = NysAct(model)
    assert set(optimizer.layers) == {"0", "2"}
    assert "shared" in optimizer.skipped["1"]
    assert "shared" in optimizer.skipped["3"]


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_the_rows_of_several_calls_are_pooled(calls):
    torch.manual_seed(0)
    layer = nn.Linear(6, 6).double()
    optimizer = NysAct(layer, **EXACT)
    # A recurrence whose calls see different numbers of rows.
    state, _ = rows(1, dtype=torch.float64)[0]
    seen, loss = [], 0.0
    for call in range(calls):
        state = torch.tanh(state[call:])
        seen.append(with_constant(state))
        state = layer(state)
        loss = loss + state.sum()
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(optimizer.inverse(""), expected_inverse(*seen))


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


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_parameter_frozen_later_stays_and_the_rest_is_trained(frozen):
    model = dense(dtype=torch.float64)
    optimizer = NysAct(model, **{**SETTINGS, "rank": 99, "cov_interval": 1})
    train(model, optimizer, rows(5, dtype=torch.float64))
    param = getattr(model[2], frozen)
    param.requires_grad_(False)
    optimizer.zero_grad()
    kept = [p.detach().clone() for p in model.parameters()]
    inverse = optimizer.inverse("2")
    train(model, optimizer, rows(4, seed=2, dtype=torch.float64))
    for before, after in zip(kept, model.parameters(), strict=True):
        assert torch.equal(before, after) == (after is param)
    if frozen == "bias":
        # The covariance goes on without the constant's row and column.
        assert optimizer.inverse("2").shape == (8, 8)
    else:
        # Its statistics fade, but their ratio stays.
        torch.testing.assert_close(optimizer.inverse("2"), inverse, rtol=1e-12, atol=1e-12)


def test_a_frozen_bias_stays_out_of_the_covariance():
    inputs, targets = rows(1, dtype=torch.float64)[0]
    model = dense(dtype=torch.float64)
    model[0].bias.requires_grad_(False)
    optimizer = NysAct(model, **EXACT)
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    torch.testing.assert_close(optimizer.inverse("0"), expected_inverse(inputs))


class Routed(nn.Module):
    """Two branches of equal shape, of which a forward takes one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.head = nn.Linear(6, 3)
        self.double()

    def forward(self, inputs, branch=0):
        return self.head(torch.tanh(self.branches[branch](inputs)))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_an_unused_layer_keeps_its_statistics_and_disturbs_no_other(set_to_none):
    model, alone = Routed(), Routed()
    optimizer = NysAct(model, **SETTINGS)
    reference = NysAct(
        alone, [*alone.branches[0].parameters(), *alone.head.parameters()], **SETTINGS
    )
    for inputs, targets in rows(10, dtype=torch.float64):
        for net, chosen in ((model, optimizer), (alone, reference)):
            chosen.zero_grad(set_to_none=set_to_none)
            F.cross_entropy(net(inputs), targets).backward()
            chosen.step()
    for mine, theirs in zip(
        [*model.branches[0].parameters(), *model.head.parameters()],
        [*alone.branches[0].parameters(), *alone.head.parameters()],
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
    unused = model.branches[1]
    assert int(optimizer.state[unused.weight]["refreshed"]) == -1
    torch.testing.assert_close(unused.weight, alone.branches[1].weight, rtol=0, atol=0)
    identity = torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(optimizer.inverse("branches.1"), identity, rtol=0, atol=0)


def test_a_layer_first_used_after_hundreds_of_steps_is_preconditioned_at_once():
    model = Routed()
    optimizer = NysAct(model, **{**EXACT, "lr": 1e-3, "cov_interval": 5, "inv_interval": 50})
    data = rows(8, dtype=torch.float64)
    for step in range(311):
        inputs, targets = data[step % 8]
        optimizer.zero_grad()
        F.cross_entropy(model(inputs, int(step > 300)), targets).backward()
        if step > 300:
            before = model.branches[1].weight.detach().clone()
            gradient = torch.cat(
                [model.branches[1].weight.grad, model.branches[1].bias.grad.unsqueeze(1)], 1
            )
        optimizer.step()
        if step > 300:
            # Step 305 is the first that takes statistics; until then the update is plain.
            chosen = data[305 % 8][0]
            inverse = (
                torch.eye(7, dtype=torch.float64)
                if step < 305
                else expected_inverse(with_constant(chosen))
            )
            moved = before - model.branches[1].weight
            torch.testing.assert_close(moved, 1e-3 * (gradient @ inverse)[:, :6])


def test_a_layer_never_used_is_reported_and_saved_with_the_rest():
    model = Routed()
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, rows(9, dtype=torch.float64))
    assert optimizer.diagnostics()["branches.1"]["refresh_age"] is None
    assert optimizer.diagnostics()["branches.0"]["refresh_age"] == 0
    fresh = NysAct(Routed(), **SETTINGS)
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.diagnostics()["branches.1"]["refresh_age"] is None


def test_gradients_that_are_none_at_a_step_leave_their_parameters_alone():
    model = dense(dtype=torch.float64)
    optimizer = NysAct(model, **SETTINGS)
    data = rows(6, dtype=torch.float64)
    train(model, optimizer, data)
    for inputs, targets in data:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        model[2].weight.grad = None
        model[0].bias.grad = None
        kept = [model[2].weight.detach().clone(), model[0].bias.detach().clone()]
        moved = model[0].weight.detach().clone()
        optimizer.step()
        assert torch.equal(model[2].weight, kept[0])
        assert torch.equal(model[0].bias, kept[1])
        assert not torch.equal(model[0].weight, moved)
