"""Modes that are on at construction or loading do not matter."""

import contextlib
import copy

import pytest
import torch

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, NysAdamW, NysMuon, Preconditioner

from ..steps import images, same, state_of, two_layers, values

FACES = [NysAct, FOOF, KFAC, Eva, SKFAC, NysMuon, NysAdamW, Preconditioner]


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        # Not to "cpu": any default that is set turns off torch's fast path of encoder layers.
        torch.set_default_device(None)


# On "meta" every tensor that is made without a device shows: its values are gone.
MODES = {
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "default dtype": lambda: default_dtype(torch.float16),
}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def train(model, optimizer, steps, mode=contextlib.nullcontext):
    for seed in steps:
        optimizer.zero_grad()
        inputs = images(seed)
        with mode():
            outputs = model(inputs)
            outputs.square().mean().backward()
            optimizer.step()


def run(face, around_start, around_load, around_steps=contextlib.nullcontext):
    options = {"cov_interval": 1, "inv_interval": 2}
    model, other = two_layers(), two_layers()
    with around_start():
        optimizer = face(model, **options)
    train(model, optimizer, range(3), around_steps)
    state = copy.deepcopy(optimizer.state_dict())
    weights = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        other.load_state_dict(weights)
    restored = face(other, **options)
    with around_load():
        restored.load_state_dict(state)
    train(other, restored, range(3, 7), around_steps)
    return state_of(restored) | values(other)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_mode_at_construction_and_loading_does_not_matter(face, mode):
    nothing = contextlib.nullcontext
    expected = run(face, nothing, nothing)
    assert same(run(face, mode, nothing), expected)
    assert same(run(face, nothing, mode), expected)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("mode", ["default device", "default dtype"])
def test_a_default_during_training_does_not_matter(face, mode):
    nothing = contextlib.nullcontext
    expected = run(face, nothing, nothing)
    assert same(run(face, MODES[mode], MODES[mode], MODES[mode]), expected)


@pytest.mark.parametrize("face", [NysAct, NysAdamW])
def test_a_state_dict_that_was_made_in_inference_mode_loads(face):
    model = two_layers()
    optimizer = face(model, cov_interval=1, inv_interval=1)
    train(model, optimizer, range(2))
    with torch.inference_mode():
        state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    train(model, optimizer, range(2, 4))
