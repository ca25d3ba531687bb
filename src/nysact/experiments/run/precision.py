"""What fp32 means on a GPU, where torch lets convolutions round their inputs to TF32 by default."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# The precision of the configuration, and what accelerate calls it.
AUTOCAST = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Let a GPU round the inputs of products and convolutions in fp32 to TF32, or forbid it.

    Args:
        precision: ``"tf32"`` allows it in the body; any other forbids it.

    Yields:
        Nothing.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
