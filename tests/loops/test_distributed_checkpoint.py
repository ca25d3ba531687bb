"""The framework's distributed checkpoints: parameters by name, states by parameter."""

import copy

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from nysact import NysAct

from .resume import Late
from .training import SETTINGS, assert_same, batches, network, train

FLAT = pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flat"])
AT = pytest.mark.parametrize("steps", [1, 4, 7])


def pair(sketch, data):
    model, fresh = network(), network(seed=5)
    optimizer = NysAct(model, sketch=sketch, **SETTINGS)
    train(model, optimizer, data)
    return model, optimizer, fresh, NysAct(fresh, sketch=sketch, **SETTINGS)


@FLAT
@AT
@pytest.mark.parametrize("sketch", ["columns", "subspace"])
def test_a_state_taken_by_name_resumes_bit_for_bit(sketch, steps, flatten):
    model, optimizer, fresh, restored = pair(sketch, batches(steps))
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    assert any("0.weight" in key for key in (state if flatten else state["state"]))
    fresh.load_state_dict(model.state_dict())
    set_optimizer_state_dict(fresh, restored, state, options=options)
    data = batches(9, seed=2)
    train(model, optimizer, data)
    train(fresh, restored, data)
    assert_same(restored, optimizer)


@FLAT
def test_layers_not_yet_seen_are_saved_with_the_rest(flatten):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model, fresh = Late(torch.float32), Late(torch.float32)
    optimizer, restored = NysAct(model, **SETTINGS), NysAct(fresh, **SETTINGS)
    train(model, optimizer, batches(7))
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    fresh.load_state_dict(model.state_dict())
    set_optimizer_state_dict(fresh, restored, state, options=options)
    model.late = fresh.late = True
    data = batches(9, seed=2)
    train(model, optimizer, data)
    train(fresh, restored, data)
    assert_same(restored, optimizer)


@FLAT
def test_a_frozen_layer_among_the_parameters_is_no_hindrance(flatten):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model, fresh = network(), network(seed=5)
    for each in (model, fresh):
        next(each.children()).requires_grad_(False)
    optimizer, restored = (NysAct(m, m.parameters(), **SETTINGS) for m in (model, fresh))
    train(model, optimizer, batches(4))
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    fresh.load_state_dict(model.state_dict())
    set_optimizer_state_dict(fresh, restored, state, options=options)
    data = batches(9, seed=2)
    train(model, optimizer, data)
    train(fresh, restored, data)
    assert_same(restored, optimizer)


def test_a_bias_that_was_frozen_before_any_step_is_no_part_of_the_state():
    """As a new process freezes it before it loads."""
    states = []
    for steps in (2, 0):
        model = network()
        optimizer = NysAct(model, **SETTINGS)
        next(p for name, p in model.named_parameters() if "bias" in name).requires_grad_(False)
        train(model, optimizer, batches(steps))
        states.append(get_optimizer_state_dict(model, optimizer)["state"])
    shapes = [
        {(name, key): v.shape for name, state in each.items() for key, v in state.items()}
        for each in states
    ]
    assert (
        shapes[0].items() >= {k: s for k, s in shapes[1].items() if "momentum" not in k[1]}.items()
    )
