"""Keys of other people in groups and state train, are saved and load again."""

import io

import pytest
import torch

from nysact import NysAct, NysMuon, Preconditioner

from ..steps import images, plain, two_layers

# Of layer-wise rates, DINO's heads, sharpness-aware minimisation, timm and Adam's.
TAGS = {
    **{"lr_mult": 0.5, "last_layer": True, "rho": 0.05, "adaptive": False, "layer_decay": 0.75},
    **{"wd_mult": 0.0, "amsgrad": False, "zzz": None, "fix_lr": True, "initial_lr": 0.1},
}


def step(model, *optimizers, seed=0):
    model.zero_grad()
    model(images(seed)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()


def reloaded(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("face", [NysAct, NysMuon, Preconditioner])
def test_tags_in_groups_are_kept_without_a_warning_and_load(face):
    model, other = two_layers(), two_layers()
    optimizer = face(model, [{"params": model.parameters(), **TAGS}])
    step(model, optimizer)
    restored = face(other, [{"params": other.parameters()}])
    restored.load_state_dict(reloaded(optimizer))
    for group in (*optimizer.param_groups, *restored.param_groups):
        assert TAGS.items() <= group.items()
    step(other, restored, seed=1)


def test_a_tag_that_appears_during_training_is_kept_and_loads():
    model = two_layers()
    optimizer = plain(model)
    step(model, optimizer)
    optimizer.param_groups[0]["rho"] = 0.1
    step(model, optimizer)
    saved = reloaded(optimizer)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["rho"] == 0.1


def test_state_of_wrappers_is_handed_back():
    """Lookahead's slow weights, SAM's old ones, a counter, and an entry of no parameter."""
    model, other = two_layers(), two_layers()
    optimizer, restored = plain(model, momentum=0.9), plain(other, momentum=0.9)
    step(model, optimizer)
    for param in model.parameters():
        optimizer.state[param]["slow_buffer"] = param.detach().clone()
        optimizer.state[param]["old_p"] = [param.detach().clone(), {"n": 3}]
    optimizer.state["lookahead"] = {"k": 5}
    other.load_state_dict(model.state_dict())
    restored.load_state_dict(reloaded(optimizer))
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        state = restored.state[mine]
        assert torch.equal(state["slow_buffer"], theirs)
        assert torch.equal(state["old_p"][0], theirs)
        assert state["old_p"][1] == {"n": 3}
    assert restored.state["lookahead"] == {"k": 5}
    for seed in range(1, 4):
        step(model, optimizer, seed=seed)
        step(other, restored, seed=seed)
        assert all(map(torch.equal, other.parameters(), model.parameters()))


def test_a_lookahead_around_the_optimizer_saves_and_loads():
    timm = pytest.importorskip("timm.optim")
    model, other = two_layers(), two_layers()
    optimizer, restored = (timm.Lookahead(plain(m, momentum=0.9), k=2) for m in (model, other))
    for seed in range(5):
        step(model, optimizer, seed=seed)
    other.load_state_dict(model.state_dict())
    restored.load_state_dict(reloaded(optimizer))
    for seed in range(5, 9):
        step(model, optimizer, seed=seed)
        step(other, restored, seed=seed)
    assert all(map(torch.equal, other.parameters(), model.parameters()))
