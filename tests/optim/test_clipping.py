"""KL clipping: a bound on the step's length in the metric of the curvature."""

import math

import pytest
import torch
from torch import nn

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct

from ..oracles import error, randn
from .family.dense import PLAIN, step_of

FACES = [NysAct, FOOF, KFAC, Eva, SKFAC]
every_face = pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)


@every_face
@pytest.mark.parametrize("bound", [1e-3, 1e3])
def test_clipping_bounds_the_step_in_the_metric_of_the_curvature(face, bound):
    observed, free, _ = step_of(face, "conv", kl_clip=None)
    _, clipped, _ = step_of(face, "conv", kl_clip=bound)
    length = PLAIN["lr"] ** 2 * (free * observed.gradient).sum()
    assert error(clipped, free * min(1.0, math.sqrt(bound / length))) < 1e-10
    assert (bound < length) == (bound == 1e-3)


@pytest.mark.parametrize("face", [NysAct, FOOF], ids=lambda face: face.__name__)
def test_a_group_of_another_update_is_not_clipped(face):
    """Its steps are bounded by their own scale."""
    ends = []
    for bound in (None, 1e-6):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
        groups = [
            {"params": model[0].parameters(), "update": "adamw"},
            {"params": model[1].parameters()},
        ]
        optimizer = face(model, groups, **PLAIN, kl_clip=bound)
        model(randn(6, 4)).square().sum().backward()
        optimizer.step()
        ends.append([layer.weight.detach() for layer in model])
    assert torch.equal(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][1], ends[1][1])
