"""Device, precision and processes of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError

# The precision of the configuration, and accelerate's name for it.
AUTOCAST = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(config: Config, *, cpu: bool) -> Accelerator:
    """Make accelerate's object, on the CPU if ``cpu`` says so, or say what the device lacks."""
    # Otherwise the choices of an earlier run of this process would be kept.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    autocast = AUTOCAST[config.precision]
    accelerator = Accelerator(mixed_precision=autocast, cpu=cpu)
    lacking = autocast != "no" and not accelerator.native_amp
    if lacking or (config.precision == "tf32" and accelerator.device.type != "cuda"):
        raise ExperimentError(
            f"precision={config.precision}: {accelerator.device.type} has no such arithmetic; set "
            "precision=fp32, or bf16, which a CPU has too"
        )
    return accelerator


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Let a GPU round fp32 inputs of products and convolutions to TF32, or forbid it.

    By default torch rounds those of convolutions, so that fp32 would not be fp32.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
