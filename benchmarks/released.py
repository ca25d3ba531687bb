"""The running sketch of the authors' released code, fed with exact covariances."""

import torch
from torch import Tensor

from nysact.experiments.baselines.released import draw_probes, released_inverse


class ReleasedSketch:
    """The running sketch of one layer.

    Args:
        kind: ``"columns"`` (NysAct-S) or ``"gaussian"`` (NysAct-G).
        dim: Side of the covariance.
        rank: Columns of the sketch.
        decay: Decay of the running average, which never restarts.
        generator: Source of the test matrices.
    """

    def __init__(
        self, kind: str, dim: int, rank: int, decay: float, generator: torch.Generator
    ) -> None:
        self.kind = kind
        self.rank = min(rank, dim)
        self.decay = decay
        self.generator = generator
        self.average = torch.zeros(dim, self.rank, dtype=torch.float64)
        self.probes = torch.zeros(dim, self.rank, dtype=torch.float64)
        self.updates = 0

    def update(self, covariance: Tensor) -> None:
        """Sketch one batch's covariance with a fresh test matrix."""
        self.probes = draw_probes(self.kind, len(self.average), self.rank, self.generator)
        self.average.lerp_(covariance @ self.probes, 1 - self.decay)
        self.updates += 1

    def inverse(self, damping: float) -> Tensor:
        """Build the dense inverse that gradients are multiplied with."""
        correction = 1 - self.decay**self.updates
        return released_inverse(self.average / correction, self.probes, damping)
