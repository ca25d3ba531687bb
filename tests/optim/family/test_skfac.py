"""SKFAC is K-FAC's dense formula on the first samples, averaged over positions."""

import pytest
import torch
from torch import nn

from nysact import SKFAC

from ...oracles import error
from .dense import LAYERS, step_of, two_sided


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kept", [2, 128])
def test_the_update_is_the_dense_formula_on_the_samples_kept(name, kept):
    observed, product, _ = step_of(SKFAC, name, damping=0.1, kl_clip=None, rank=kept)
    inputs = observed.by_sample(observed.rows).mean(2)[:, :kept]
    outputs = observed.by_sample(observed.outputs).sum(2)[:, :kept]
    count = inputs.shape[1]
    expected = two_sided(
        observed.gradient, inputs.mT @ inputs / count, outputs.mT @ outputs / count, 0.1
    )
    assert error(product, expected) < 1e-10


@pytest.mark.parametrize("option", [{"stat_decay": 0.9}, {"subsample": 2}])
def test_options_that_mean_nothing_to_it_are_refused(option):
    with pytest.raises(TypeError, match=next(iter(option))):
        SKFAC(nn.Linear(2, 2), **option)


def test_micro_batches_past_the_samples_kept_change_nothing():
    weights = []
    for batches in (1, 3):
        torch.manual_seed(0)
        model, inputs = nn.Linear(3, 2).double(), torch.randn(24, 3, dtype=torch.float64)
        optimizer = SKFAC(model, lr=0.1, rank=8)
        for part in inputs.chunk(batches):
            (model(part).square().sum() / 24).backward()
        optimizer.step()
        weights.append(model.weight.detach())
    assert torch.allclose(*weights, rtol=1e-10, atol=0)
