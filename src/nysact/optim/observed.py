"""What the layers of a stack observed since the last step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.curvature import Curvature, Tensors
from nysact.layers.linear_map import LinearMap
from nysact.optim.backlog import Backlog
from nysact.optim.layer import Layer
from nysact.optim.totals import Totals


class Observed:
    """Sums over the rows of one step, kept until the step takes them or their gradient is dropped.

    Args:
        layers: The stack's layers.
        curvature: The approximation.
        backlog: Where calls wait whose statistics are to be taken.

    Attributes:
        probes: What the inputs are multiplied with, ``(layers, groups, dim, rank)``.
        sums: Name to the sum since the last backward pass.
    """

    def __init__(self, layers: Sequence[Layer], curvature: Curvature, backlog: Backlog) -> None:
        self.backlog = backlog
        self._layers = layers
        self._curvature = curvature
        self.close()

    def open(self, totals: Totals, probes: Tensor) -> None:
        """Start from nothing what is to be added to the totals, with the window's probes."""
        self.probes = probes
        self.sums = {name: torch.zeros_like(total) for name, total in totals.statistics.items()}
        self._rows = torch.zeros_like(totals.mass)
        self._output_rows, self._samples = self._rows.clone(), self._rows[:, :1].clone()
        self._settled: list[Tensor] = []
        for layer in self._layers:
            layer.forget()

    def close(self) -> None:
        """Let go of what only a step with statistics needs."""
        self.sums, self._settled = {}, []
        self.probes = self._rows = self._output_rows = self._samples = torch.empty(0)
        for layer in self._layers:
            layer.forget()

    @property
    def device(self) -> torch.device:
        """Where the sums are."""
        return self._rows.device

    def count(self, index: int, samples: int) -> None:
        """Count the samples of one call, whether or not they are chosen for the statistics.

        Args:
            index: The layer's place.
            samples: Their number.
        """
        if self._curvature.observes_outputs:
            self._samples[index].add_(samples)

    def add(self, index: int, linear_map: LinearMap, offset: int) -> None:
        """Add the statistics of one call's inputs.

        Args:
            index: The layer's place.
            linear_map: The map that the chosen inputs induce.
            offset: Samples that the layer's earlier calls contributed.
        """
        for name, value in self._curvature.measure(linear_map, self.probes[index], offset).items():
            self.sums[name][index].add_(value)
        if len(set(linear_map.rows)) == 1:
            self._rows[index].add_(linear_map.rows[0])
        else:
            for group, count in enumerate(linear_map.rows):
                self._rows[index, group].add_(count)

    def add_outputs(self, index: int, rows: Tensor, samples: int, offset: int) -> None:
        """Add the statistics of the gradient of one output.

        Args:
            index: The layer's place.
            rows: The gradient as rows, ``(groups, rows, out)``.
            samples: Samples that they come from.
            offset: Samples that the layer's earlier calls contributed.
        """
        for name, value in self._curvature.measure_outputs(rows, samples, offset).items():
            self.sums[name][index].add_(value)
        self._output_rows[index].add_(rows.shape[1])

    def _awaiting(self) -> tuple[Tensor, ...]:
        """What was observed since the last backward pass: the sums, and the counts behind them."""
        return (*self.sums.values(), self._rows, self._output_rows, self._samples)

    def settle(self, layer: Layer) -> None:
        """Set aside what a layer observed for the gradient that it has by now.

        Args:
            layer: One of the stack's layers.
        """
        self.backlog.work_off()
        if not self._settled:
            self._settled = [torch.zeros_like(value) for value in self._awaiting()]
        for aside, value in zip(self._settled, self._awaiting(), strict=True):
            aside[layer.index].add_(value[layer.index])
            value[layer.index].zero_()
        layer.reached, layer.settled = False, True

    def discard_settled(self, layer: Layer) -> None:
        """Forget what was set aside for a layer.

        Args:
            layer: One of the stack's layers.
        """
        for aside in self._settled:
            aside[layer.index].zero_()
        layer.settled = False

    def discard(self, layer: Layer) -> None:
        """Forget what a layer observed since the last step.

        Args:
            layer: One of the stack's layers.
        """
        self.backlog.work_off()
        self.discard_settled(layer)
        for value in self._awaiting():
            value[layer.index].zero_()
        layer.forget()

    def total(self) -> tuple[Tensors, Tensor]:
        """Sum up the step.

        Returns:
            For :meth:`Totals.add` name to total, and where there are data, all of them finite.
        """
        self.backlog.work_off()
        if self._settled:
            for value, aside in zip(self._awaiting(), self._settled, strict=True):
                value.add_(aside)
        totals = self._curvature.totals(self.sums, self._samples)
        usable = self._rows > 0
        if self._curvature.observes_outputs:
            usable &= self._output_rows > 0
        for total in totals.values():
            usable &= total.isfinite().flatten(2).all(-1) if total.ndim > 2 else total.isfinite()
        return {**totals, "mass": self._rows}, usable
