"""Newton-Schulz iterations, over stacks of matrices of equal shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# The coefficients of Jordan et al., as in torch.optim.Muon.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def working_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype of the iterations: bfloat16 where it is fast, float32 at least elsewhere."""
    if tensor.device.type != "cpu":
        return torch.bfloat16
    return torch.promote_types(tensor.dtype, torch.float32)


def orthogonalise_all(matrices: Sequence[Tensor], steps: int) -> list[Tensor]:
    """Orthogonalise stacks of matrices, (n, out, fan_in) each; stacks of one shape in one batch."""
    members: dict[Any, list[int]] = {}
    for index, stack in enumerate(matrices):
        members.setdefault((*stack.shape[1:], stack.dtype, stack.device), []).append(index)
    results: list[Tensor] = list(matrices)
    for indices in members.values():
        stacks = [matrices[index] for index in indices]
        batch = torch.cat(stacks) if len(stacks) > 1 else stacks[0]
        parts = orthogonalise(batch, steps).split([len(stack) for stack in stacks])
        for index, part in zip(indices, parts, strict=True):
            results[index] = part
    return results


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Map the singular values of matrices (n, out, fan_in) to about 1 by Newton-Schulz steps."""
    wide = matrices.to(working_dtype(matrices))
    tall = wide.shape[-2] > wide.shape[-1]
    wide = wide.mT if tall else wide
    # Preconditioned gradients may be small at any scale: only a zero must not divide.
    norm = torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True)
    wide = wide / norm.clamp(min=torch.finfo(wide.dtype).tiny)
    for _ in range(steps):
        gram = wide @ wide.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        wide = torch.baddbmm(wide, polynomial, wide, beta=_A)
    return wide.mT if tall else wide
