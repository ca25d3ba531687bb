"""The base of two-sided curvatures: of a layer's inputs and of the gradients of its outputs."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nysact.curvature.curvature import JoinedCurvature, Shape, Tensors, lift
from nysact.layers.linear_map import LinearMap

SIDES = ("input", "output")


class TwoSided(JoinedCurvature):
    """A Kronecker product of a matrix of the inputs and one of the output gradients.

    Each side keeps one statistic and computes its factors from that; a subclass says how. The loss
    is taken to be a mean over N samples: a sample's own gradient is N times what backward gives.
    """

    observes_outputs = True
    statistic: str  # the name of a side's statistic
    degree: int = 1  # the power of the output gradient in its statistic

    def __init__(self, loss_scale: Callable[[], float]) -> None:
        self._loss_scale = loss_scale  # gives the factor by which the loss is scaled, when asked

    @abstractmethod
    def statistic_size(self, size: int) -> tuple[int, ...]:
        """Size of the statistic of a side that has ``size`` features."""

    @abstractmethod
    def factor_sizes(self, size: int) -> dict[str, tuple[int, ...]]:
        """Name and size of each factor of a side that has ``size`` features."""

    @abstractmethod
    def of_inputs(self, linear_map: LinearMap, offset: int) -> Tensor:
        """Compute the input side's statistic of one call."""

    @abstractmethod
    def of_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensor:
        """Compute the output side's statistic of one call, with the loss scale removed."""

    @abstractmethod
    def factorise(self, statistic: Tensor) -> tuple[Tensors, Tensor]:
        """Compute one side's factors, and which of them are usable."""

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        sizes = (shape.dim, shape.out)
        kept = {self._key(s): self.statistic_size(n) for s, n in zip(SIDES, sizes, strict=True)}
        return {**kept, "samples": ()}

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        return {
            f"{side}_{name}": torch.zeros(
                len(seeds), shape.groups, *size, dtype=torch.float64, device="cpu"
            )
            for side, features in zip(SIDES, (shape.dim, shape.out), strict=True)
            for name, size in self.factor_sizes(features).items()
        }

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        return {self._key("input"): self.of_inputs(linear_map, offset)}

    def measure_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensors:
        scale = self._loss_scale()
        rows = rows if scale == 1 else rows / scale
        return {self._key("output"): self.of_outputs(rows, samples, offset)}

    def totals(self, sums: Tensors, samples: Tensor) -> Tensors:
        outputs = sums[self._key("output")]
        scaled = outputs * lift(samples**self.degree, outputs)
        counts = samples.expand(outputs.shape[:2])
        return {**sums, self._key("output"): scaled, "samples": counts}

    def means(self, totals: Tensors, rows: Tensor) -> Tensors:
        inputs, outputs = (totals[self._key(side)] for side in SIDES)
        return {
            self._key("input"): inputs / lift(rows, inputs),
            self._key("output"): outputs / lift(totals["samples"], outputs),
        }

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        found = {side: self.factorise(statistics[self._key(side)]) for side in SIDES}
        factors = {f"{s}_{name}": v for s, (side, _) in found.items() for name, v in side.items()}
        return factors, found["input"][1] & found["output"][1]

    def _key(self, side: str) -> str:
        return f"{side}_{self.statistic}"
