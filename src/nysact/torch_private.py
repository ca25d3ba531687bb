"""The private parts of torch in use, each with its reason and the versions it was checked with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._guards import detect_fake_mode


def is_traced(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a trace or a fake mode, so that it must not outlive it."""
    # No public function finds a tensor's fake mode. Checked with 2.11 and 2.14.
    return torch.compiler.is_compiling() or detect_fake_mode(tensor) is not None
