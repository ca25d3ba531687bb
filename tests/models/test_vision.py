"""Vision models of torchvision and timm learn one batch, and say what they leave out."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.optical_flow import raft_small

from .training import check_training, classification, images, unsupported
from .unet import UNet

CONVNETS = {
    "resnet50": (54, unsupported(BatchNorm2d=53)),
    "mobilenet_v3_small": (54, unsupported(BatchNorm2d=34)),
    "mobilenet_v3_large": (64, unsupported(BatchNorm2d=46)),
    "densenet121": (121, unsupported(BatchNorm2d=121)),
    "convnext_tiny": (59, unsupported(LayerNorm2d=5, LayerNorm=18, CNBlock=18)),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def still(model):
    """Without dropout and stochastic depth, which would hide whether the loss falls."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | models.swin_transformer.StochasticDepth):
            module.p = 0.0
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVNETS)
def test_convolutional_network(name):
    model = still(models.get_model(name, num_classes=10))
    layers, skipped = CONVNETS[name]
    loss = classification(model, images(4, 3, 64, 64))
    check_training(model, loss, layers=layers, skipped=skipped)


@pytest.mark.slow
def test_vision_transformer():
    model = models.vit_b_16(num_classes=10, image_size=32)
    skipped = unsupported(LayerNorm=25, VisionTransformer=1, Encoder=1)
    loss = classification(model, images(2, 3, 32, 32))
    check_training(model, loss, layers=50, skipped=skipped)


@pytest.mark.slow
def test_swin_transformer_whose_attention_calls_no_submodule():
    model = still(models.swin_t(num_classes=10))
    skipped = unsupported(LayerNorm=29, ShiftedWindowAttention=12)
    loss = classification(model, images(2, 3, 64, 64))
    check_training(model, loss, layers=53, skipped=skipped, bypassed=24)


@pytest.mark.slow
def test_optical_flow_whose_update_runs_several_times():
    model = raft_small()
    first, second, flow = (
        images(1, 3, 128, 128),
        images(1, 3, 128, 128).flip(-1),
        images(1, 2, 128, 128),
    )

    def loss():
        return sum((f - flow).abs().mean() for f in model(first, second, num_flow_updates=3))

    check_training(model, loss, layers=53, skipped={})


def test_unet_with_transposed_convolutions():
    model, inputs = UNet(), images(2, 3, 32, 32)
    target = (inputs.sum(1, keepdim=True) > 0).float()

    def loss():
        return nn.functional.binary_cross_entropy_with_logits(model(inputs), target)

    check_training(model, loss, layers=8, skipped=unsupported(BatchNorm2d=5))


@pytest.mark.slow
def test_deit_of_timm():
    timm = pytest.importorskip("timm")
    model = timm.create_model("deit_small_patch16_224", img_size=32, num_classes=10)
    skipped = unsupported(LayerNorm=25, VisionTransformer=1)
    loss = classification(model, images(2, 3, 32, 32))
    check_training(model, loss, layers=50, skipped=skipped)
