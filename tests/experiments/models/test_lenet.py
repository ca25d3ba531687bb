import pytest
import torch

from nysact.experiments.models import lenet5


@pytest.mark.parametrize("side", [28, 32])
def test_lenet5_has_its_parameters_and_reads_both_sizes(side):
    model = lenet5(side=side)
    assert sum(p.numel() for p in model.parameters()) == 61_706
    assert model(torch.zeros(2, 1, side, side)).shape == (2, 10)


def test_lenet5_refuses_other_sizes():
    with pytest.raises(ValueError, match="side=30"):
        lenet5(side=30)
