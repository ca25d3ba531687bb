"""Groups, options and parameters that change during training are followed, or refused."""

import copy

import pytest
import torch
from torch import nn

from nysact import KFAC, NysAct, NysAdamW, NysMuon

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import (
    backward,
    exact,
    images,
    inverse_of,
    joint_value,
    plain,
    same,
    state_of,
    two_layers,
    values,
)

SCHEDULE = {"rank": 4, "cov_interval": 2, "inv_interval": 4, "momentum": 0.9}


def step(model, optimizer, seed=0):
    optimizer.zero_grad()
    model(images(seed)).square().mean().backward()
    optimizer.step()


def copied(optimizer):
    """As Lightning's BaseFinetuning does on restarts: new dicts of the same parameters."""
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]


def bare(optimizer):
    """New dicts that hold nothing but the parameters and torch's own settings."""
    kept = ("params", "lr", "momentum", "weight_decay")
    optimizer.param_groups = [{k: g[k] for k in kept} for g in optimizer.param_groups]


def one_by_one(optimizer):
    for index, group in enumerate(optimizer.param_groups):
        optimizer.param_groups[index] = {**group, "params": tuple(group["params"])}


@pytest.mark.parametrize("replace", [copied, bare, one_by_one])
@pytest.mark.parametrize("at", [0, 3, 4, 8])
@pytest.mark.parametrize("face", [NysAct, NysMuon, NysAdamW, KFAC])
def test_copies_of_the_groups_change_nothing(face, at, replace):
    left, model = two_layers(), two_layers()
    options = {"cov_interval": 2, "inv_interval": 4, "damping": 0.3}
    optimizers = [face(m, **options) for m in (left, model)]
    for index in range(12):
        if index == at:
            replace(optimizers[1])
        for m, optimizer in zip((left, model), optimizers, strict=True):
            step(m, optimizer, index)
        assert same(values(model), values(left))
    assert optimizers[1].diagnostics()["5"]["refresh_age"] == 3


def test_options_in_copies_of_the_groups_are_followed():
    module = nn.Linear(5, 2).double()
    optimizer = exact(module, inv_interval=10)
    inputs = randn(8, 5)
    backward(module, inputs)
    optimizer.step()
    optimizer.param_groups = [{**optimizer.param_groups[0], "damping": 0.2, "lr": 0.0}]
    before = joint_value(module)
    optimizer.step()
    assert torch.equal(joint_value(module), before)
    expected = damped_inverse(covariance(rows(module, inputs)), 0.2)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_a_group_that_was_appended_to_the_list_is_preconditioned():
    model = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    optimizer = plain(model, model[0].parameters(), rank=50)
    optimizer.param_groups.append({"params": list(model[1].parameters()), "damping": 0.3})
    for seed in range(2):
        for layer in model:
            layer.zero_grad()
            backward(layer, randn(9, 6, seed=seed))
        optimizer.step()
    assert list(optimizer.layers) == ["0", "1"]
    assert optimizer.diagnostics()["1"]["refresh_age"] == 0
    assert optimizer.param_groups[1]["param_names"] == ["1.weight", "1.bias"]
    optimizer.load_state_dict(optimizer.state_dict())


def test_parameters_that_were_replaced_in_model_and_groups_go_on_with_their_statistics():
    """As fully_shard does, and Accelerate after it."""
    left, model = two_layers(), two_layers()
    optimizers = [plain(m, **SCHEDULE) for m in (left, model)]
    for index in range(11):
        if index == 5:  # no step that takes statistics: a replaced weight loses those of its step
            for module in model.modules():
                for name, param in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(param.detach().clone()))
            group = optimizers[1].param_groups[0]
            group["params"] = [model.get_parameter(name) for name in group["param_names"]]
        for m, optimizer in zip((left, model), optimizers, strict=True):
            step(m, optimizer, index)
        assert same(values(model), values(left)), index
    assert same(state_of(optimizers[1]), state_of(optimizers[0]))
    assert {id(p) for p in optimizers[1].state} == {id(p) for p in model.parameters()}


def test_parameters_that_the_model_does_not_have_are_refused_each_time():
    """As master weights: without the model's own the statistics would stay behind."""
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    before = values(model)
    group = optimizer.param_groups[0]
    masters = [param.detach().clone().float().requires_grad_() for param in group["params"]]
    group["params"] = masters
    for _ in range(2):
        with pytest.raises(ValueError, match=r"were replaced, .* put the model's own"):
            step(model, optimizer)
    assert same(values(model), before)


def test_a_group_that_is_no_longer_preconditioned_gets_the_plain_update():
    model = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    groups = [{"params": layer.parameters()} for layer in model]
    optimizer = plain(model, groups, rank=50)
    for index in range(4):
        optimizer.zero_grad()
        if index == 2:
            optimizer.param_groups[1]["precondition"] = False
        before = joint_value(model[1])
        for layer in model:
            backward(layer, randn(9, 6, seed=index), seed=index)
        optimizer.step()
        moved = torch.allclose(
            before[..., :-1] - joint_value(model[1])[..., :-1], 0.1 * model[1].weight.grad
        )
        assert moved == (index >= 2)
    assert list(optimizer.layers) == ["0"]
    assert "precondition=False" in optimizer.skipped["1"]
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[1]["precondition"] = True
    for index in range(2):
        for layer in model:
            backward(layer, randn(9, 6, seed=index), seed=index)
        optimizer.step()
    assert optimizer.diagnostics()["1"]["refresh_age"] == 0


def test_the_last_preconditioned_group_may_not_go():
    model = two_layers()
    optimizer = plain(model)
    optimizer.param_groups[0]["precondition"] = False
    with pytest.raises(ValueError, match="no layer of the model can be preconditioned"):
        step(model, optimizer)
    optimizer.param_groups[0]["precondition"] = True
    step(model, optimizer)
    assert optimizer.diagnostics()["5"]["refresh_age"] == 0


CHANGES = {
    "damping": ({"damping": -1.0}, "damping=-1.0, expected a number > 0"),
    "intervals": ({"cov_interval": 3, "inv_interval": 50}, "inv_interval=50 is not a multiple"),
    "rate": ({"lr": float("nan")}, "lr=nan, expected a finite"),
    "flag": ({"nesterov": "no"}, "nesterov='no'"),
    "momentum": ({"nesterov": True, "momentum": 0.0}, "nesterov=True needs momentum > 0"),
    "update": ({"update": "adam"}, "update='adam', expected one of"),
    "precondition": ({"precondition": "yes"}, "precondition='yes', expected True or False"),
    "rank": ({"rank": 0}, "rank=0"),
    "fused": ({"fused": True, "foreach": True}, "foreach=True and fused=True"),
}


@pytest.mark.parametrize(("options", "message"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("replaced", [False, True])
def test_a_bad_option_that_is_set_later_is_refused_at_the_step_until_it_is_mended(
    options, message, replaced
):
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    before, good = values(model), dict(optimizer.param_groups[0])
    if replaced:
        optimizer.param_groups = [{**good, **options}]
    else:
        optimizer.param_groups[0].update(options)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            step(model, optimizer)
    assert same(values(model), before)
    optimizer.param_groups[0].update(good)
    step(model, optimizer)
    assert not same(values(model), before)


def test_an_option_that_was_deleted_is_named():
    model = two_layers()
    optimizer = plain(model)
    del optimizer.param_groups[0]["damping"]
    with pytest.raises(ValueError, match="a parameter group has no 'damping', expected a number"):
        step(model, optimizer)


def test_a_group_may_change_its_update():
    model = two_layers()
    optimizer = plain(model, [{"params": [model[0].weight]}, {"params": [model[5].weight]}])
    step(model, optimizer)
    optimizer.param_groups[0]["update"] = "muon"
    before = model[0].weight.detach().clone()
    step(model, optimizer)
    moved = (before - model[0].weight.detach()).reshape(4, 18)
    assert torch.linalg.cond(moved) < 2
    optimizer.param_groups[1]["params"] = [model[1].weight]
    optimizer.param_groups[1]["update"] = "muon"
    with pytest.raises(ValueError, match="Muon needs the weight of a layer with an adapter"):
        step(model, optimizer)


@pytest.mark.parametrize("face", [NysAct, NysMuon])
def test_a_group_without_parameters_is_fine(face):
    """As the usual split into decay and no decay leaves it where only LoRA's factors train."""
    model, other = two_layers(), two_layers()
    optimizer, restored = (
        face(m, [{"params": m.parameters()}, {"params": [], "weight_decay": 0.0}])
        for m in (model, other)
    )
    step(model, optimizer)
    other.load_state_dict(model.state_dict())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, each in ((model, optimizer), (other, restored)):
        step(m, each, seed=1)
    assert same(values(model), values(other))


@pytest.mark.parametrize(
    "leave", [lambda o: o.param_groups.pop(), lambda o: o.param_groups[1]["params"].clear()]
)
def test_parameters_that_left_are_no_part_of_a_state_dict(leave):
    model = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)]).double()
    optimizer = plain(model, [{"params": layer.parameters()} for layer in model], rank=4)
    for seed in range(4):
        for layer in model:
            backward(layer, randn(9, 6, seed=seed))
        optimizer.step()
        if seed == 1:
            leave(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert list(optimizer.layers) == ["0"]


def test_a_bad_interval_of_samples_is_refused_by_the_step_and_not_by_a_forward():
    model = two_layers()
    optimizer = plain(model)
    optimizer.param_groups[0]["subsample"] = 0
    with pytest.raises(ValueError, match="subsample=0, expected"):
        step(model, optimizer)
