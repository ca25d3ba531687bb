"""Eva is the dense inverse of a rank-one curvature."""

import pytest
import torch
from torch import nn

from nysact import Eva

from ...oracles import error
from .dense import LAYERS, step_of


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("damping", [0.03, 1.0])
def test_the_update_solves_with_the_damped_rank_one_matrix(name, damping):
    observed, product, _ = step_of(Eva, name, damping=damping, kl_clip=None, subsample=1)
    for group, gradient in enumerate(observed.gradient):
        row = observed.rows[group].mean(0)
        output = observed.by_sample(observed.outputs)[group].sum(1).mean(0)
        vector = torch.outer(output, row).flatten()
        matrix = torch.outer(vector, vector) + damping * torch.eye(len(vector)).to(vector)
        expected = torch.linalg.solve(matrix, gradient.flatten()).view_as(gradient)
        assert error(product[group], expected) < 1e-10


def test_vectors_are_nearly_the_newest_and_act_at_once():
    (group,) = Eva(nn.Linear(2, 2)).param_groups
    assert (group["stat_decay"], group["cov_interval"], group["inv_interval"]) == (0.05, 5, 5)
    (group,) = Eva(nn.Linear(2, 2), cov_interval=3).param_groups
    assert (group["cov_interval"], group["inv_interval"]) == (3, 3)
    (group,) = Eva(nn.Linear(2, 2), cov_interval=3, inv_interval=6).param_groups
    assert group["inv_interval"] == 6


def test_an_inverse_of_one_side_is_refused_with_the_reason():
    _, _, optimizer = step_of(Eva, "linear")
    with pytest.raises(TypeError, match="both sides"):
        optimizer.inverse("layer")
