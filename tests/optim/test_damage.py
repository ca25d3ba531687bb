"""A damaged state dict is refused and nothing changed, or it is taken over as it stands."""

import copy
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nysact import KFAC, NysAct, NysAdamW, NysMuon, Preconditioner

from ..steps import images, same, state_of, two_layers, values

INTERVALS = {"cov_interval": 1, "inv_interval": 2}
FACES = {
    "NysAct": lambda model: NysAct(model, rank=4, **INTERVALS),
    "NysMuon": lambda model: NysMuon(model, rank=4, **INTERVALS),
    "NysAdamW": lambda model: NysAdamW(model, rank=4, **INTERVALS),
    "KFAC": lambda model: KFAC(model, **INTERVALS),
    "Preconditioner": lambda model: Preconditioner(model, rank=4, **INTERVALS),
}
JUNK = [None, "7", 7, -1, 0.5, float("nan"), True, [], {}, [0], torch.zeros(2), object]
CASTS = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def trained(face, steps, seed=0):
    model = two_layers()
    optimizer = FACES[face](model)
    for step in range(steps):
        take_step(model, optimizer, seed + step)
    return model, optimizer


def take_step(model, optimizer, seed):
    optimizer.zero_grad()
    model(images(seed)).square().mean().backward()
    optimizer.step()


def places(value):
    """Every (container, key) of a nested structure."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from places(inner)


def _to_numpy(tensor):
    return tensor.float().numpy()


def damage(data, state):
    found = list(places(state))
    container, key = found[data.draw(st.integers(0, len(found) - 1))]
    action = data.draw(st.sampled_from(["drop", "replace", "retype", "rename", "repeat"]))
    value = container[key]
    if action == "drop":
        del container[key]
    elif action == "retype" and isinstance(value, torch.Tensor):
        change = st.sampled_from([*CASTS, torch.Tensor.tolist, _to_numpy, torch.ravel])
        change = data.draw(change)
        container[key] = value.to(change) if isinstance(change, torch.dtype) else change(value)
    elif action == "retype":
        container[key] = data.draw(st.sampled_from([str, repr, bool, type, lambda v: [v]]))(value)
    elif action == "rename" and isinstance(container, dict):
        container[data.draw(st.sampled_from([str(key), 99, "zzz"]))] = container.pop(key)
    elif action == "repeat" and isinstance(container, list):
        container.append(value)
    else:
        container[key] = data.draw(st.sampled_from(JUNK))


def agree(found, given):
    """Whether a structure holds all of another, tensors up to their dtype."""
    if isinstance(given, dict):
        # Numbers only tie groups to states, and an empty dict stands for nothing.
        rest = {k: v for k, v in given.items() if k != "params" and v != {}}
        return all(key in found and agree(found[key], value) for key, value in rest.items())
    if isinstance(given, list):
        return all(agree(f, g) for f, g in zip(found, given, strict=True))
    if isinstance(given, torch.Tensor):
        return torch.equal(found.to(torch.complex128), given.to(torch.complex128))
    return repr(found) == repr(given)


def check(data, face):
    state = copy.deepcopy(trained(face, 3)[1].state_dict())
    for _ in range(data.draw(st.integers(1, 2))):
        damage(data, state)
    model, optimizer = trained(face, 2, seed=5)
    twin, undisturbed = trained(face, 2, seed=5)
    before, given = state_of(optimizer), copy.deepcopy(state)
    if refusal(optimizer, state):
        assert same(state_of(optimizer), before)
        take_step(model, optimizer, 9)
        take_step(twin, undisturbed, 9)
        assert same(values(model), values(twin))
    else:
        assert agree(optimizer.state_dict(), given)
        take_step(model, optimizer, 9)
        assert all(param.isfinite().all() for param in model.parameters())


def refusal(optimizer, state):
    """The message of the error that loading raises, or nothing."""
    try:
        optimizer.load_state_dict(state)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("face", FACES)
@settings(max_examples=12)
@given(data=st.data())
def test_a_damaged_state_changes_nothing_or_is_taken_as_it_stands(face, data):
    check(data, face)


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
@settings(max_examples=120)
@given(data=st.data())
def test_so_do_many_damaged_states(face, data):
    check(data, face)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_failure_inside_torch_leaves_all_as_it_was(steps):
    """As memory that runs out; here a value of someone else that can't be copied."""
    state = copy.deepcopy(trained("NysAct", 3)[1].state_dict())
    state["param_groups"][0]["lock"] = threading.Lock()
    model, optimizer = trained("NysAct", steps, seed=5)
    twin, undisturbed = trained("NysAct", steps, seed=5)
    before = state_of(optimizer)
    with pytest.raises(TypeError, match="lock"):
        optimizer.load_state_dict(state)
    assert same(state_of(optimizer), before)
    for each, stepper in ((model, optimizer), (twin, undisturbed)):
        take_step(each, stepper, 9)
    assert same(values(model), values(twin))
