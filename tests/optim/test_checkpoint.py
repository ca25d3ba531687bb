"""A run that was saved and resumed is the run that was not, bit for bit."""

import copy
import io
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from nysact import KFAC, Preconditioner
from nysact.curvature import SKETCHES

from ..oracles import randn
from ..pairwise import pairwise
from ..steps import images, plain, same, state_of, two_layers, values


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


class Net(nn.Module):
    """Layers in all their kinds, one of them used from the 33rd step on."""

    def __init__(self, dtype):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.twin = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.small = nn.Linear(4, 3)
        self.late = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 3)
        self.to(dtype)

    def forward(self, x, step):
        x = self.norm(self.conv(x)).relu() + self.twin(x)
        x = x.mean((2, 3))
        return self.small(x) + (self.late(x) if step >= 33 else 0)


def build(sketch, dtype, **options):
    torch.manual_seed(0)
    model = Net(dtype)
    bias = [model.norm.weight, model.norm.bias]
    others = [param for param in model.parameters() if all(param is not b for b in bias)]
    groups = [{"params": others}, {"params": bias, "weight_decay": 0.0}]
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "rank": 4}
    intervals = {"cov_interval": 5, "inv_interval": 20, "stat_decay": 0.7}
    return model, plain(model, groups, sketch=sketch, **{**settings, **intervals, **options})


def train(model, optimizer, start, stop):
    dtype = model.conv.weight.dtype
    for step in range(start, stop):
        optimizer.zero_grad()
        outputs = model(images(step, samples=4, dtype=dtype), step)
        (outputs - randn(4, 3, seed=step).to(dtype)).square().mean().backward()
        optimizer.step()


def through_file(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resume(sketch, dtype, model, optimizer, **options):
    """The same model and optimizer, as another process would have them."""
    twin, other = build(sketch, dtype, **options)
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(through_file(optimizer))
    return twin, other


@pairwise(sketch=SKETCHES, dtype=[torch.float32, torch.float64, torch.bfloat16], rank=[4, 1000])
def test_a_resumed_run_is_the_same_bit_for_bit(sketch, dtype, rank):
    model, optimizer = build(sketch, dtype, rank=rank)
    train(model, optimizer, 0, 60)
    half, saved = build(sketch, dtype, rank=rank)
    train(half, saved, 0, 30)
    twin, resumed = resume(sketch, dtype, half, saved, rank=rank)
    assert same(state_of(resumed), state_of(saved))
    train(twin, resumed, 30, 60)
    assert same(values(twin), values(model))
    assert same(state_of(resumed), state_of(optimizer))
    assert resumed.diagnostics()["late"]["refresh_age"] == 19
    assert resumed.diagnostics()["unused"]["refresh_age"] is None


@pytest.mark.parametrize("at", [0, 1, 20, 21, 36])
@pytest.mark.parametrize("sketch", ["subspace", *map(slow, ("columns", "gaussian"))])
def test_a_run_may_be_saved_at_any_step(sketch, at):
    model, optimizer = build(sketch, torch.float64)
    train(model, optimizer, 0, 45)
    half, saved = build(sketch, torch.float64)
    train(half, saved, 0, at)
    twin, resumed = resume(sketch, torch.float64, half, saved)
    train(twin, resumed, at, 45)
    assert same(values(twin), values(model))
    assert same(state_of(resumed), state_of(optimizer))


@every_sketch
def test_a_state_may_be_loaded_into_the_optimizer_that_it_came_from(sketch):
    runs = []
    for rewind in (False, True):
        model, optimizer = build(sketch, torch.float64)
        train(model, optimizer, 0, 23)
        if rewind:
            optimizer.load_state_dict(optimizer.state_dict())
        train(model, optimizer, 23, 40)
        runs.append(values(model) | state_of(optimizer))
    assert same(*runs)


def test_a_run_resumes_after_first_data_that_gave_no_factors():
    def spoil(model, optimizer):
        broken = torch.full((4, 2, 6, 6), float("nan"), dtype=torch.float64)
        model.eval()
        model(broken, 0).sum().backward()
        for param in (p for p in model.parameters() if p.grad is not None):
            param.grad.nan_to_num_(0.0, 0.0, 0.0)
        model.train()
        optimizer.step()

    runs = []
    for resumed in (False, True):
        model, optimizer = build("subspace", torch.float64)
        spoil(model, optimizer)
        train(model, optimizer, 1, 3)
        if resumed:
            model, optimizer = resume("subspace", torch.float64, model, optimizer)
        train(model, optimizer, 3, 30)
        runs.append(values(model) | state_of(optimizer))
    assert same(*runs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_entry_keeps_its_dtype(dtype):
    model, optimizer = build("subspace", dtype)
    train(model, optimizer, 0, 22)
    _, resumed = resume("subspace", dtype, model, optimizer)
    for state in (resumed.state[p] for p in resumed.param_groups[0]["params"]):
        for name, value in state.items():
            if name in ("refreshed", "failures"):
                assert value.dtype == torch.int64
            elif name == "momentum_buffer":
                assert value.dtype == dtype
            else:
                assert value.dtype == torch.promote_types(dtype, torch.float32)


def test_the_state_holds_tensors_under_the_weights_alone():
    model, optimizer = build("gaussian", torch.float32)
    train(model, optimizer, 0, 7)
    saved = optimizer.state_dict()
    assert saved.keys() == {"state", "param_groups"}
    for state in saved["state"].values():
        assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_the_saved_settings_are_used():
    model, optimizer = build("gaussian", torch.float64, damping=0.3, seed=5, stat_decay=0.2)
    train(model, optimizer, 0, 23)
    twin, resumed = build("gaussian", torch.float64)
    twin.load_state_dict(model.state_dict())
    resumed.load_state_dict(through_file(optimizer))
    for stepper, m in ((optimizer, model), (resumed, twin)):
        train(m, stepper, 23, 45)
    assert resumed.param_groups[0]["damping"] == 0.3
    assert same(values(twin), values(model))


def flatten(saved):
    """All but the momentum, which the framework takes over without a copy."""
    return {
        f"{index}.{name}": value
        for index, state in saved["state"].items()
        for name, value in state.items()
        if name != "momentum_buffer"
    }


def test_what_is_saved_does_not_change_when_it_is_loaded():
    model, optimizer = build("columns", torch.bfloat16)
    train(model, optimizer, 0, 22)
    saved = through_file(optimizer)
    flat = flatten(copy.deepcopy(saved))
    twin, resumed = build("columns", torch.bfloat16)
    twin.load_state_dict(model.state_dict())
    resumed.load_state_dict(saved)
    train(twin, resumed, 22, 45)
    assert same(flatten(saved), flat)


def test_the_engine_alone_resumes_bit_for_bit():
    runs = []
    for stops in ([30], [13, 30]):
        model, _ = build("subspace", torch.float64)
        engine = Preconditioner(model, rank=4, cov_interval=2, inv_interval=10)
        sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        done = 0
        for stop in stops:
            if done:
                saved = through_file(engine)
                engine.remove_hooks()
                engine = Preconditioner(model, rank=4, cov_interval=2, inv_interval=10)
                engine.load_state_dict(saved)
            for step in range(done, stop):
                sgd.zero_grad()
                model(images(step, samples=4), step).square().mean().backward()
                engine.step()
                sgd.step()
            done = stop
        runs.append(values(model) | state_of(engine))
    assert same(*runs)


# --- what does not fit -----------------------------------------------------------------------


def saved_by(model, params=None, steps=2, **options):
    optimizer = plain(model, params, momentum=0.9, **options)
    for step in range(steps):
        model(images(step)).sum().backward()
        optimizer.step()
    return optimizer.state_dict()


def torchs(kind):
    model = two_layers()
    optimizer = kind(model.named_parameters(), lr=0.1)
    model(images()).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def wider():
    model = two_layers()
    model[0] = nn.Conv2d(2, 4, 5, padding=2).double()
    return model


def in_groups():
    model = two_layers()
    return saved_by(model, [{"params": model[:5].parameters()}, {"params": model[5].parameters()}])


def unlisted():
    state = saved_by(two_layers(), rank=4)
    state["state"][99] = state["state"][0]
    return state


MISMATCHES = {
    "another rank": (lambda: saved_by(two_layers(), rank=5), ValueError, "rank=5.*rank=4"),
    "another sketch": (
        lambda: saved_by(two_layers(), rank=4, sketch="columns"),
        ValueError,
        "sketch='columns'.*sketch='subspace'",
    ),
    "another model": (
        lambda: saved_by(wider(), rank=4),
        ValueError,
        r"of '0\.weight' has shape .* in the state dict",
    ),
    "fewer parameters": (
        lambda: saved_by(two_layers()[:1], rank=4),
        ValueError,
        r"groups of \[2\] parameters, this optimizer of \[6\]",
    ),
    "other groups": (in_groups, ValueError, r"groups of \[4, 2\] parameters.*other groups"),
    "a layer left out": (
        lambda: saved_by(two_layers(), rank=4, exclude=["0"]),
        ValueError,
        r"lacks .* for '0\.weight'",
    ),
    "SGD's": (lambda: torchs(torch.optim.SGD), ValueError, "a state of SGD, not of NysAct"),
    "AdamW's": (lambda: torchs(torch.optim.AdamW), ValueError, "a state of AdamW, not of NysAct"),
    "Adam's": (lambda: torchs(torch.optim.Adam), ValueError, "a state of Adam, not of NysAct"),
    "another curvature's": (
        lambda: KFAC(two_layers()).state_dict(),
        ValueError,
        "saved with rank=None, this optimizer has rank=4",
    ),
    "parameters that are not listed": (unlisted, ValueError, "does not list"),
    "nothing": (lambda: None, TypeError, "state_dict is None, expected the dict"),
    "a file's name": (lambda: "run.pt", TypeError, "is 'run.pt', .*: load the file first"),
    "a path": (lambda: Path("run.pt"), TypeError, r"PosixPath.*load the file first"),
    "a list": (lambda: [1, 2], TypeError, r"state_dict is \[1, 2\]"),
    "a whole checkpoint": (
        lambda: {"model": {}, "optimizer": saved_by(two_layers(), rank=4), "epoch": 3},
        ValueError,
        "a whole checkpoint, pass its entry 'optimizer'",
    ),
    "an empty dict": (dict, ValueError, r"has no 'state', only \[\]"),
    "layers that are not in it": (
        lambda: {**(saved := saved_by(two_layers(), rank=4)), "state": {2: saved["state"][2]}},
        ValueError,
        r"no state of the weights \['0.weight', '5.weight'\]",
    ),
    "other names": (
        lambda: saved_by(
            nn.Sequential(OrderedDict(zip("abcdef", two_layers(), strict=True))), rank=4
        ),
        ValueError,
        r"state of 'a\.weight' where this optimizer has '0\.weight'",
    ),
    "damping that is none": (
        lambda: (
            saved_by(two_layers(), rank=4)
            | {
                "param_groups": [
                    {**saved_by(two_layers(), rank=4)["param_groups"][0], "damping": -1.0}
                ]
            }
        ),
        ValueError,
        "damping=-1.0",
    ),
    "no state": (lambda: {"param_groups": []}, ValueError, "has no 'state'"),
    "a model's": (lambda: two_layers().state_dict(), ValueError, "it is that of a model"),
}


@pytest.mark.parametrize(("saved", "kind", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(saved, kind, message):
    model = two_layers()
    optimizer = plain(model, rank=4, momentum=0.9)
    for step in range(3):
        model(images(step)).sum().backward()
        optimizer.step()
    before, state = state_of(optimizer), saved()
    with pytest.raises(kind, match=message):
        optimizer.load_state_dict(state)
    assert same(state_of(optimizer), before)
    # It goes on as if nothing had been tried.
    inverse = optimizer.inverse("5")
    model(images(9)).sum().backward()
    optimizer.step()
    assert not torch.equal(optimizer.inverse("5"), inverse)
    assert optimizer.diagnostics()["5"]["refresh_age"] == 0


def test_a_group_that_was_saved_without_preconditioner_is_refused():
    """Taken over, the group would say one thing and its layers do another."""

    def groups(model, precondition):
        last = {"params": model[5].parameters(), "precondition": precondition}
        return [{"params": model[:5].parameters()}, last]

    model = two_layers()
    optimizer = plain(model, groups(model, True))
    other = two_layers()
    state = plain(other, groups(other, False)).state_dict()
    with pytest.raises(ValueError, match=r"precondition=False.*precondition=True"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[1]["precondition"]
