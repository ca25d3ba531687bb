import pytest
import torch
from torch import nn

from nysact.experiments.models.networks import BasicBlock, CifarResNet


def test_depth_counts_the_layers_with_weights():
    layers = [m for m in CifarResNet(20).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 20


@pytest.mark.parametrize("depth", [2, 0, 21, 33])
def test_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth={depth}"):
        CifarResNet(depth)


def test_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros():
    x = torch.randn(2, 4, 6, 6)
    out = BasicBlock(4, 10, stride=2).shortcut(x)
    assert out.shape == (2, 10, 3, 3)
    assert torch.equal(out[:, 3:7], x[:, :, ::2, ::2])
    assert out[:, :3].count_nonzero() == 0
    assert out[:, 7:].count_nonzero() == 0


def test_shortcut_of_a_block_that_keeps_the_shape_is_the_identity():
    x = torch.randn(2, 4, 6, 6)
    assert BasicBlock(4, 4, stride=1).shortcut(x) is x


def test_weights_start_kaiming_normal():
    torch.manual_seed(0)
    weight = CifarResNet(20).stage3[-1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
