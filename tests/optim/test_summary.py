"""What an optimizer says of itself: a line, a few lines, and plain numbers."""

import math
import warnings

import pytest
import torch
from torch import nn

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, NysAdamW, NysMuon, Preconditioner

from ..steps import images, plain, two_layers

FACES = [NysAct, FOOF, KFAC, Eva, SKFAC, NysMuon, NysAdamW, Preconditioner]


def mostly_embedding():
    return nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 4), nn.LayerNorm(4))


def test_the_representation_is_one_line_with_the_settings_that_differ():
    assert repr(NysAct(two_layers())) == "NysAct(lr=0.1, 2 layers, 1 parameter groups)"
    optimizer = NysMuon(two_layers(), damping=0.25, kl_clip=1e-3)
    assert repr(optimizer).startswith("NysMuon(lr=0.02, damping=0.25, ")
    assert repr(Preconditioner(two_layers(), rank=3)).startswith("Preconditioner(rank=3, 2 layers")


def test_the_summary_counts_weights_and_groups_modules_by_reason():
    model = nn.Sequential(*two_layers(), nn.LayerNorm(3), nn.LayerNorm(3), nn.Linear(3, 2)).double()
    optimizer = plain(model, exclude=["8"])
    covered = 4 * 2 * 9 + 4 + 16 * 3 + 3
    total = covered + 8 + 6 + 6 + 8
    first, *lines = optimizer.summary().splitlines()
    assert first == f"NysAct: 2 layers preconditioned, {covered / total:.1%} of {total} weights"
    assert "  plain update: 12 weights in 6, 7: no adapter is registered for LayerNorm" in lines
    assert "  plain update: 8 weights in 8: excluded by the pattern '8'" in lines
    assert "8 parameters" not in first
    assert lines[-1].startswith("  group 0: 12 parameters, update=sgd, lr=0.1, momentum=0.0")


@pytest.mark.parametrize("face", FACES)
def test_every_face_has_a_summary_with_a_line_for_each_group(face):
    optimizer = face(two_layers())
    lines = optimizer.summary().splitlines()
    assert lines[0].startswith(f"{face.__name__}: 2 layers preconditioned, 94.1% of 135 weights")
    assert sum("  group " in line for line in lines) == len(optimizer.param_groups)


def test_frozen_and_shared_weights_are_not_counted_twice():
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    optimizer = NysAct(model)
    assert "of 24 weights" in optimizer.summary()


def test_a_model_that_is_mostly_left_out_gets_one_warning_with_the_largest_modules():
    with pytest.warns(UserWarning, match="preconditions") as caught:
        NysAct(mostly_embedding())
    (warning,) = caught
    assert warning.filename == __file__
    message = str(warning.message)
    assert message.startswith("NysAct preconditions 0% of the 8,044 weights")
    assert "'0' (8,000: no adapter is registered for Embedding), '2' (8: no adapter" in message


@pytest.mark.parametrize(
    "options",
    [
        {"exclude": ["0"]},
        {"params": lambda m: m[1].parameters()},
        {
            "params": lambda m: [
                {"params": m[0].parameters(), "precondition": False},
                {"params": m[1].parameters()},
            ]
        },
    ],
    ids=["excluded", "a part", "without preconditioner"],
)
def test_a_choice_of_the_user_gets_no_warning(options):
    model = mostly_embedding()
    params = options.pop("params", lambda m: None)(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NysAct(model, params, **options)


@pytest.mark.parametrize("face", FACES)
def test_flat_diagnostics_are_plain_numbers(face):
    model = two_layers()
    optimizer = face(model, cov_interval=1, inv_interval=1)
    assert "0/refresh_age" not in optimizer.diagnostics(flat=True)
    model(images()).square().mean().backward()
    optimizer.step()
    flat, nested = optimizer.diagnostics(flat=True), optimizer.diagnostics()
    assert all(type(value) is float and math.isfinite(value) for value in flat.values())
    assert flat.keys() == {f"{layer}/{name}" for layer, all_ in nested.items() for name in all_}
    assert flat["5/refresh_age"] == 0.0
    if "eigenvalues" in nested["5"]:
        assert flat["5/eigenvalues"] == float(nested["5"]["eigenvalues"].max())


def test_vectors_are_reduced():
    torch.manual_seed(0)
    grouped = nn.Conv2d(4, 4, 3, groups=2).double()
    optimizer = plain(grouped)
    grouped(torch.randn(3, 4, 5, 5, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    trace = optimizer.diagnostics()[""]["trace"]
    assert trace.shape == (2,)
    assert optimizer.diagnostics(flat=True)["/trace"] == float(trace.mean())
