"""The factors in force, and what is derived from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, Shape, Tensors, lift
from nysact.optim.layer import Layer

# In place of the step of the last refresh: no data yet, and data that gave no factors yet.
NEVER, IN_VAIN = -1, -2


class Factors:
    """The factors in force, the age of each layer's, and what is kept until others replace them.

    Args:
        layers: The stack's layers.
        curvature: The approximation.
        shape: Sizes of the covariance.
        dtype: Dtype of the factors.

    Attributes:
        in_force: Name to factor.
        refreshed: Step of each layer's last refresh, ``NEVER`` or ``IN_VAIN``.
        failures: How often in a row each layer's factorisation has failed.
    """

    def __init__(
        self, layers: Sequence[Layer], curvature: Curvature, shape: Shape, dtype: torch.dtype
    ) -> None:
        self._layers = layers
        self._group = layers[0].group
        self._curvature = curvature
        self._shape = shape
        initial = curvature.initial(shape, self._seeds(0))
        self.in_force = {name: value.to(dtype) for name, value in initial.items()}
        self.refreshed = torch.full((len(layers),), NEVER, dtype=torch.int64)
        self.failures = torch.zeros(len(layers), dtype=torch.int64)
        self._acting: tuple[float, Tensors] | None = None
        self._drawn: tuple[int, Tensor] | None = None

    @property
    def tensors(self) -> Tensors:
        """All that a resumed run needs."""
        return {**self.in_force, "refreshed": self.refreshed, "failures": self.failures}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and cast the factors."""
        self.in_force = {name: value.to(device, dtype) for name, value in self.in_force.items()}
        self.refreshed, self.failures = self.refreshed.to(device), self.failures.to(device)
        self.forget_derived()

    def forget_derived(self) -> None:
        """Let go of what was derived from factors that are no longer in force."""
        self._acting = self._drawn = None

    def replace(
        self, new: Tensors, succeeded: Tensor, wanted: Tensor, reached: Tensor, step: int
    ) -> Tensor:
        """Put new factors in force; a layer whose factorisation failed keeps those it has.

        Args:
            new: Name to factor.
            succeeded: Boolean ``(layers, groups)``: whether each can be used.
            wanted: Boolean ``(layers,)``: whose are to be replaced.
            reached: Boolean ``(layers,)``: which had data.
            step: Number of steps done.

        Returns:
            Boolean ``(layers,)``: which were wanted and failed.
        """
        accepted = wanted & succeeded.all(-1)
        for name, value in new.items():
            old = self.in_force[name]
            old.copy_(torch.where(lift(accepted, value), value, old))
        self.refreshed.masked_fill_(reached & (self.refreshed == NEVER), IN_VAIN)
        self.refreshed.masked_fill_(accepted, step)
        failed = wanted & ~accepted
        self.failures.add_(failed).masked_fill_(accepted, 0)
        self.forget_derived()
        return failed

    # --- derived -----------------------------------------------------------------------------

    def probes(self, window: int) -> Tensor:
        """Give the test matrices of a window, drawn once."""
        if self._drawn is None or self._drawn[0] != window:
            drawn = self._curvature.probes(self._shape, self.in_force, self._seeds(window))
            self._drawn = window, drawn
        return self._drawn[1]

    def action(self) -> Tensors:
        """Give what gradients are multiplied with, until the factors or the damping change."""
        damping = self._group["damping"]
        if self._acting is None or self._acting[0] != damping:
            known = self.refreshed >= 0
            self._acting = damping, self._curvature.action(self.in_force, damping, known)
        return self._acting[1]

    def inverse(self, layer: Layer) -> Tensor:
        """Write out the preconditioner in force for a layer.

        Args:
            layer: One of the stack's layers.

        Returns:
            ``(d, d)``, or ``(groups, d, d)`` for more than one group.
        """
        index = slice(layer.index, layer.index + 1)
        factors = {name: value[index] for name, value in self.in_force.items()}
        known = self.refreshed[index] >= 0
        dense = self._curvature.inverse(factors, self._group["damping"], known, self._shape.dim)
        return dense.squeeze(0) if self._shape.groups == 1 else dense

    def diagnostics(self, layer: Layer) -> dict[str, Any]:
        """Describe a layer's factors.

        Args:
            layer: One of the stack's layers.

        Returns:
            Name to number or tensor.
        """
        refreshed = int(self.refreshed[layer.index])
        factors = {name: value[layer.index] for name, value in self.in_force.items()}
        return {
            "rank": self._shape.rank,
            **self._curvature.summary(factors),
            "damping": self._group["damping"],
            "refresh_age": None if refreshed < 0 else self._group["step"] - 1 - refreshed,
            "failures": int(self.failures[layer.index]),
        }

    def _seeds(self, window: int) -> list[int]:
        return [_seed(self._group.get("seed", 0), layer.name, window) for layer in self._layers]


def _seed(seed: int, name: str, window: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{window}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") // 2
