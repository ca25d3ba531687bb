import pytest
import torch

from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.accelerator import arithmetic, make_accelerator
from tests.experiments.configs import config


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_tf32_is_allowed_where_it_is_asked_for_alone(precision):
    before = flags()
    with arithmetic(precision):
        assert flags() == (precision == "tf32",) * 2
    assert flags() == before


def test_cpu_has_no_tf32():
    with pytest.raises(ExperimentError, match="precision=tf32: cpu has no such arithmetic"):
        make_accelerator(config(precision="tf32"), cpu=True)


@pytest.mark.cuda
def test_fp32_convolutions_do_not_round_their_inputs():
    images = torch.randn(8, 64, 16, 16, device="cuda")
    weights = torch.randn(64, 64, 3, 3, device="cuda")
    exact = torch.nn.functional.conv2d(images.double(), weights.double())

    def error(precision: str) -> float:
        with arithmetic(precision):
            found = torch.nn.functional.conv2d(images, weights)
        return float((found - exact).norm() / exact.norm())

    assert error("fp32") < 1e-5
    assert error("tf32") > 1e-4
