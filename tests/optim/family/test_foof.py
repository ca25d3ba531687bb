"""FOOF is the dense formula."""

import pytest
import torch
from torch import nn

from nysact import FOOF, NysAct

from ...oracles import average, covariance, damped_inverse, error, randn, rows
from .dense import LAYERS, PLAIN, step_of


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("damping", [1.0, 0.01])
def test_the_update_is_the_gradient_times_the_damped_inverse(name, damping):
    observed, product, optimizer = step_of(FOOF, name, damping=damping)
    inverse = damped_inverse(observed.input_covariance(), damping)
    assert error(product, observed.gradient @ inverse) < 1e-10
    assert error(optimizer.inverse("layer").reshape(inverse.shape), inverse) < 1e-10


def test_the_average_goes_on_over_all_refreshes():
    layer = nn.Linear(4, 2).double()
    optimizer = FOOF(layer, **{**PLAIN, "cov_interval": 2, "inv_interval": 4}, stat_decay=0.7)
    seen = []
    for step in range(9):
        inputs = randn(6, 4, seed=step)
        layer(inputs).sum().backward()
        optimizer.step()
        if step % 2 == 0:
            seen.append(covariance(rows(layer, inputs)))
    expected = damped_inverse(average(seen, 0.7), 1.0)
    assert error(optimizer.inverse("").unsqueeze(0), expected) < 1e-10


@pytest.mark.parametrize("sketch", ["columns", "gaussian", "subspace"])
def test_nysact_of_full_rank_is_foof(sketch):
    """The same weights after several windows of training."""
    ends = []
    for build in (FOOF, lambda model, **o: NysAct(model, rank=1000, sketch=sketch, **o)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
        optimizer = build(model.double(), cov_interval=1, inv_interval=3)
        for step in range(8):
            optimizer.zero_grad()
            model(randn(5, 2, 4, 4, seed=step)).square().mean().backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert error(*ends) < 1e-10
