"""What the optimizer tells of itself, and groups added later."""

import pytest
import torch
from torch import nn

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import backward, images, inverse_of, plain, two_layers


def step(model, optimizer, seed=0):
    optimizer.zero_grad()
    model(images(seed)).square().sum().backward()
    optimizer.step()


def test_the_inverse_of_a_layer_without_factors_is_the_identity():
    model = two_layers()
    optimizer = plain(model)
    assert torch.equal(optimizer.inverse("0"), torch.eye(19, dtype=torch.float64))
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    identity = torch.eye(19).expand(2, 19, 19)
    assert torch.equal(plain(grouped).inverse(""), identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [("6", r"expected one of \['0', '5'\]"), ("1", "no adapter is registered for BatchNorm2d")],
)
def test_an_unknown_layer_is_named_with_what_there_is(name, message):
    optimizer = plain(two_layers())
    with pytest.raises(KeyError, match=message):
        optimizer.inverse(name)


def test_diagnostics_describe_every_layer():
    module = nn.Linear(9, 2).double()
    optimizer = plain(nn.Sequential(module), rank=4, sketch="gaussian", inv_interval=3, damping=0.2)
    assert optimizer.diagnostics()["0"]["refresh_age"] is None
    inputs = randn(30, 9)
    A = covariance(rows(module, inputs))[0]
    for index in range(5):
        backward(module, inputs)
        optimizer.step()
        known = optimizer.diagnostics()["0"]
        assert known["refresh_age"] == index % 3
    assert known["rank"] == 4
    assert known["damping"] == 0.2
    assert known["failures"] == 0
    assert known["eigenvalues"].shape == (1, 4)
    assert error(known["trace"], A.trace().reshape(1)) < 1e-10
    captured = known["eigenvalues"].sum(-1)
    assert error(known["trace_captured"], captured / A.trace()) < 1e-10
    assert error(known["tail"], (A.trace() - captured) / 6) < 1e-10
    # The diagnostics describe the current inverse.
    spectrum = torch.linalg.eigvalsh(optimizer.inverse("0")).reciprocal() - 0.2
    expected = torch.cat([known["tail"].expand(6), known["eigenvalues"][0]]).sort().values
    assert error(spectrum.sort().values, expected) < 1e-8


def test_diagnostics_without_tail_say_that_it_is_zero():
    module = nn.Linear(9, 2).double()
    optimizer = plain(module, rank=4, tail=False)
    backward(module, randn(30, 9))
    optimizer.step()
    known = optimizer.diagnostics()[""]
    assert known["tail"].item() == 0
    assert 0 < known["trace_captured"].item() < 1


def test_what_is_told_of_the_layers_can_not_change_the_optimizer():
    optimizer = plain(two_layers())
    optimizer.layers.pop("0")
    optimizer.skipped.clear()
    assert list(optimizer.layers) == ["0", "5"]
    assert list(optimizer.skipped) == ["1"]


# --- groups added later ----------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_group_added_later_is_preconditioned_and_leaves_the_others(at):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    alone = nn.ModuleList([nn.Linear(6, 2)]).double()
    alone[0].load_state_dict(model[0].state_dict())
    options = {"rank": 3, "inv_interval": 4, "momentum": 0.9}
    optimizer = plain(model, model[0].parameters(), **options)
    reference = plain(alone, **options)
    for index in range(9):
        if index == at:
            optimizer.add_param_group({"params": model[1].parameters(), "damping": 0.5, "rank": 50})
        inputs = randn(12, 6, seed=index)
        for stepper, layers in ((optimizer, model), (reference, alone)):
            stepper.zero_grad()
            for layer in layers:
                backward(layer, inputs, index)
            stepper.step()
        assert error(optimizer.inverse("0"), reference.inverse("0")) < 1e-12
        assert error(model[0].weight.detach(), alone[0].weight.detach()) < 1e-12
    assert list(optimizer.layers) == ["0", "1"]
    assert optimizer.diagnostics()["1"]["damping"] == 0.5
    assert optimizer.diagnostics()["1"]["refresh_age"] == 0
    assert all(len(layer._forward_hooks) == 1 for layer in model)


def test_a_group_added_while_paused_stays_paused():
    model = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    optimizer = plain(model, model[0].parameters())
    with optimizer.paused():
        optimizer.add_param_group({"params": model[1].parameters()})
        backward(model[0], randn(12, 6))
    optimizer.step()
    assert optimizer.diagnostics()["0"]["refresh_age"] is None


def test_a_group_added_after_the_hooks_were_removed_brings_none_back():
    model = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    optimizer = plain(model, model[0].parameters())
    optimizer.remove_hooks()
    optimizer.add_param_group({"params": model[1].parameters()})
    assert not any(layer._forward_hooks for layer in model)


def test_a_layer_without_gradient_does_not_disturb_those_of_its_shape():
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(6, 2) for _ in range(3)]).double()
    optimizer = plain(model, rank=50)
    inputs = [randn(9, 6, seed=index) for index in range(3)]
    for layer, x in zip(model, inputs, strict=True):
        backward(layer, x)
    model[1].zero_grad()
    before = [layer.weight.detach().clone() for layer in model]
    optimizer.step()
    for index, (layer, x) in enumerate(zip(model, inputs, strict=True)):
        inverse = inverse_of(optimizer, layer, str(index))
        if index == 1:
            assert torch.equal(layer.weight.detach(), before[1])
            assert torch.equal(inverse[0], torch.eye(7, dtype=torch.float64))
        else:
            expected = damped_inverse(covariance(rows(layer, x)), 1.0)
            assert error(inverse, expected) < 1e-12
            G = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], dim=1)
            moved = 0.1 * (G @ expected[0])[:, :-1]
            assert error(before[index] - layer.weight.detach(), moved) < 1e-12


def test_layers_of_one_shape_are_computed_as_single_layers_are():
    torch.manual_seed(0)
    together = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    optimizer = plain(together, rank=3)
    single = [plain(together, together[index].parameters(), rank=3) for index in range(2)]
    for index, layer in enumerate(together):
        backward(layer, randn(9, 6, seed=index))
    for stepper in (optimizer, *single):
        stepper.step()
    for index in range(2):
        name = str(index)
        assert error(optimizer.inverse(name), single[index].inverse(name)) < 1e-12


def test_channels_last_models_train_as_others_do():
    ours, theirs = two_layers(), two_layers().to(memory_format=torch.channels_last)
    for model in (ours, theirs):
        optimizer = plain(model, momentum=0.9)
        for seed in range(4):
            step(model, optimizer, seed)
    assert error(theirs[0].weight.detach(), ours[0].weight.detach()) < 1e-10
