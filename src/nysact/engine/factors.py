"""The current factors of a group of layers, and what is derived from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Curvature, Damping, Shape, Tensors, lift

# In place of the step of the last refresh: no data yet, and data that gave no factors yet.
NEVER, WITHOUT_SUCCESS = -1, -2


class Factors:
    """Factors, their age, and the action on gradients until the next refresh.

    Attributes:
        current: Name to factor, each beginning with (layers, groups).
        refreshed: Step of each layer's last refresh, (layers,); ``NEVER`` or ``WITHOUT_SUCCESS``.
        failures: How often in a row each layer's factorisation has failed, (layers,).
    """

    def __init__(
        self,
        names: Sequence[str],
        options: Mapping[str, Any],
        curvature: Curvature,
        shape: Shape,
        dtype: torch.dtype,
    ) -> None:
        self._names = names
        self._options = options
        self._curvature = curvature
        self._shape = shape
        initial = curvature.initial(shape, self._seeds(0))
        self.current = {name: value.to(dtype) for name, value in initial.items()}
        self.refreshed = torch.full((len(names),), NEVER, dtype=torch.int64, device="cpu")
        self.failures = torch.zeros(len(names), dtype=torch.int64, device="cpu")
        self._action: tuple[Any, Tensors] | None = None
        self._drawn: tuple[int, Tensor] | None = None

    @property
    def tensors(self) -> Tensors:
        """All that a resumed run needs."""
        return {**self.current, "refreshed": self.refreshed, "failures": self.failures}

    @property
    def ready(self) -> Tensor:
        """Which layers have factors, (layers,)."""
        return self.refreshed >= 0

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and cast the factors."""
        self.current = {name: value.to(device, dtype) for name, value in self.current.items()}
        self.refreshed, self.failures = self.refreshed.to(device), self.failures.to(device)
        self.forget_derived()

    def forget_derived(self) -> None:
        """Drop what was derived from factors that have changed."""
        self._action = self._drawn = None

    def replace(
        self, new: Tensors, usable: Tensor, wanted: Tensor, tried: Tensor, step: int
    ) -> Tensor:
        """Take new factors where ``wanted`` and ``usable``; return which were wanted and failed."""
        # usable: (layers, groups); wanted, tried (had data) and the result: (layers,)
        accepted = wanted & usable.all(-1)
        for name, value in new.items():
            old = self.current[name]
            old.copy_(torch.where(lift(accepted, value), value, old))
        self.refreshed.masked_fill_(tried & (self.refreshed == NEVER), WITHOUT_SUCCESS)
        self.refreshed.masked_fill_(accepted, step)
        failed = wanted & ~accepted
        self.failures.add_(failed).masked_fill_(accepted, 0)
        self.forget_derived()
        return failed

    def probes(self, window: int) -> Tensor:
        """The test matrices of a window, drawn once."""
        if self._drawn is None or self._drawn[0] != window:
            drawn = self._curvature.probes(self._shape, self.current, self._seeds(window))
            self._drawn = window, drawn
        return self._drawn[1]

    def action(self) -> Tensors:
        """What gradients are multiplied with, until the factors or the damping change."""
        key = self._options["damping"], self._options["damping_scale"]
        if self._action is None or self._action[0] != key:
            self._action = key, self._curvature.action(self.current, self.damping(), self.ready)
        return self._action[1]

    def damping(self) -> Damping:
        """The damping, or (layers, groups) of them where it is relative to the trace."""
        damping: float = self._options["damping"]
        if self._options["damping_scale"] == "absolute":
            return damping
        mean = self._curvature.mean_eigenvalue(self.current, self._shape.dim)
        # Inputs that are dead have no scale.
        return torch.where(mean > torch.finfo(mean.dtype).tiny, mean, 1) * damping

    def inverse(self, index: int) -> Tensor:
        """The dense preconditioner of one layer, (d, d), or (groups, d, d) for several groups."""
        layer = slice(index, index + 1)
        factors = {name: value[layer] for name, value in self.current.items()}
        damping = self.damping()
        damping = damping[layer] if isinstance(damping, Tensor) else damping
        dense = self._curvature.inverse(factors, damping, self.ready[layer], self._shape.dim)
        return dense.squeeze(0) if self._shape.groups == 1 else dense

    def diagnostics(self, index: int) -> dict[str, Any]:
        """Numbers and tensors that describe one layer's factors, by name."""
        refreshed, damping = int(self.refreshed[index]), self.damping()
        factors = {name: value[index] for name, value in self.current.items()}
        return {
            "rank": self._shape.rank,
            **self._curvature.summary(factors),
            "damping": damping[index] if isinstance(damping, Tensor) else damping,
            "refresh_age": None if refreshed < 0 else self._options["step"] - 1 - refreshed,
            "failures": int(self.failures[index]),
        }

    def _seeds(self, window: int) -> list[int]:
        return [self.seed_of(name, window) for name in self._names]

    def seed_of(self, name: str, time: int) -> int:
        """A seed derived from the option, the same on all ranks and after a resume."""
        text = f"{self._options.get('seed', 0)}/{time}/{name}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") // 2
