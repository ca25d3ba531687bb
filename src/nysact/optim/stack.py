"""Layers of one shape, stacked: statistics, factors and gradients are batches of matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nysact.curvature import Curvature, Shape, Tensors
from nysact.distributed import local, local_gradient
from nysact.optim.backlog import Backlog
from nysact.optim.factors import NEVER, Factors
from nysact.optim.layer import STRUCTURAL, Layer, settings_of
from nysact.optim.observed import Observed
from nysact.optim.totals import Totals
from nysact.optim.verdict import Verdict

# Elements of the gradients that are multiplied together. A device wants few and large calls; on a
# processor what doesn't fit its cache is better taken layer by layer, without being copied.
_ELEMENTS, _BATCH_ELEMENTS = 2**24, {"cpu": 2**18}


class LayerStack:
    """The state of layers of equal shape in one parameter group, and what is computed with it.

    Every tensor begins with ``(layers, groups)``; ``optimizer.state[weight]`` holds the layers'
    slices of it.

    Args:
        layers: The layers; they are told their place.
        curvature: The approximation.
        shape: Sizes of the covariance.
        bias: Whether its last row and column belong to the bias.
        dtype: Dtype of the statistics.
        backlog: Where calls wait whose statistics are to be taken.
        reduced: Whether other processes see a part of each batch.

    Attributes:
        listening: Whether the next forward is to be observed.
        observed: What the layers observed since the last step.
        totals: What they observed in all steps.
        factors: What the last refresh made of it.
        verdict: Which layers it failed.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        curvature: Curvature,
        shape: Shape,
        *,
        bias: bool,
        dtype: torch.dtype,
        backlog: Backlog,
        reduced: bool = False,
    ) -> None:
        self.layers = layers
        self.group = layers[0].group
        self.settings = settings_of(self.group)
        self.shape = shape
        self.bias = bias
        self.dtype = dtype
        self.listening = False
        self.observed = Observed(layers, curvature, backlog)
        self.totals = Totals(layers, curvature, shape, dtype, reduced=reduced)
        self.factors = Factors(layers, curvature, shape, dtype)
        self.verdict = Verdict(layers, together=reduced)
        self._curvature = curvature
        self._reduced = reduced
        self._attempted = [False] * len(layers)
        self._opened: int | None = None
        for index, layer in enumerate(layers):
            layer.stack, layer.index = self, index
        self._slice()

    def _slice(self) -> None:
        """Make the layers' views anew after the tensors were replaced."""
        self._views = [
            {name: tensor[index] for name, tensor in self.tensors.items()}
            for index in range(len(self.layers))
        ]

    # --- state -------------------------------------------------------------------------------

    @property
    def tensors(self) -> Tensors:
        """All that a resumed run needs, by the names used in ``optimizer.state``."""
        return {**self.totals.tensors, **self.factors.tensors}

    def state(self, layer: Layer) -> Tensors:
        """Give a layer's slices of the state.

        Args:
            layer: One of the stack's layers.

        Returns:
            Name to view.
        """
        return self._views[layer.index]

    def keep(self, layer: Layer) -> Tensors:
        """Give a layer's slices of the state and of what was not reduced yet.

        Args:
            layer: One of the stack's layers.

        Returns:
            Name to tensor, for :meth:`load`.
        """
        return {**self.state(layer), **self.totals.keep(layer.index)}

    def load(self, layer: Layer, state: Tensors) -> None:
        """Take over a layer's state.

        Args:
            layer: One of the stack's layers.
            state: Name to tensor, as :meth:`state` or :meth:`keep` gave it.
        """
        for name, view in self.state(layer).items():
            view.copy_(state[name])
        for name, total in self.totals.own.items():
            if f"own {name}" in state:
                total[layer.index].copy_(state[f"own {name}"])
                self.totals.ahead = True
        self._attempted[layer.index] = bool(self.factors.refreshed[layer.index] != NEVER)
        self.factors.forget_derived()

    @property
    def device(self) -> torch.device:
        """Where the state is."""
        return self.totals.mass.device

    def fits(self, layer: Layer) -> bool:
        """Tell whether a layer's parameters still are what the state was made for.

        Args:
            layer: One of the stack's layers.

        Returns:
            Whether device, dtype and bias are the same.
        """
        weight = layer.weight
        return (
            weight.device == self.device
            and layer.has_bias == self.bias
            and layer.statistic_dtype == self.dtype
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and cast the state.

        Args:
            device: Where the layers' weights are.
            dtype: Dtype of the statistics and factors.
        """
        self.dtype = dtype
        self.totals.to(device, dtype)
        self.factors.to(device, dtype)
        self._slice()

    @property
    def cost(self) -> float:
        """Work of one layer's factorisation, up to a factor."""
        return self.shape.groups * self._curvature.work(self.shape)

    @property
    def takes_statistics(self) -> bool:
        """Whether the step that is being done is one with statistics."""
        return int(self.group["step"]) % int(self.group["cov_interval"]) == 0

    @property
    def description(self) -> str:
        """What all processes must have in common, one line."""
        names = [layer.name for layer in self.layers]
        fixed = ("step", "cov_interval", "inv_interval", "stat_decay", "damping")
        settings = {name: self.group[name] for name in fixed}
        structural = dict(zip(STRUCTURAL, self.settings, strict=True))
        return f"{names} {self.shape} {self.dtype} {settings | structural}"

    @property
    def observes_outputs(self) -> bool:
        """Whether the gradients of the layers' outputs are wanted too."""
        return self._curvature.observes_outputs

    # --- statistics --------------------------------------------------------------------------

    def open(self) -> None:
        """Start the statistics of one step from nothing, with the window's probes."""
        window = -(-int(self.group["step"]) // int(self.group["inv_interval"]))
        if self._curvature.restarts(self.shape) and self._opened not in (None, window):
            # An interval was changed within a window: the new probes need a new average.
            self.totals.clear()
        self._opened = window
        self.observed.open(self.totals, self.factors.probes(window))

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Follow a model that was moved or cast since the last step.

        Args:
            device: Where the inputs are.
            dtype: Dtype of the statistics.
        """
        if self.observed.device != device or self.dtype != dtype:
            self.observed.backlog.work_off()
            self.to(device, dtype)
            self.open()

    def commit(self) -> None:
        """Take the step's totals into the running ones; what isn't finite is left out."""
        self.totals.add(*self.observed.total())

    # --- factors -----------------------------------------------------------------------------

    def due(self, step: int) -> list[bool]:
        """Tell which layers take new factors: all once a window, others at their first data.

        Args:
            step: Number of steps done.

        Returns:
            One flag a layer.
        """
        if step % self.group["inv_interval"] == 0:
            return [True] * len(self.layers)
        if self._reduced:
            # Only this process knows of its first data.
            return [False] * len(self.layers)
        return [
            layer.fired and not attempted
            for layer, attempted in zip(self.layers, self._attempted, strict=True)
        ]

    def factorise(self, places: slice = slice(None)) -> tuple[Tensors, Tensor]:
        """Compute factors from the statistics, without putting them in force.

        Args:
            places: Which layers, by default all.

        Returns:
            The factors and a boolean ``(layers, groups)``: whether each can be used.
        """
        means = {name: value[places] for name, value in self.totals.means().items()}
        return self._curvature.refresh(means, self.observed.probes[places])

    def refresh(
        self,
        due: Sequence[bool],
        step: int,
        outcome: tuple[Tensors, Tensor] | None = None,
    ) -> None:
        """Put new factors in force and start a new window.

        A layer whose factorisation fails keeps the factors it has.

        Args:
            due: Which layers.
            step: Number of steps done.
            outcome: What :meth:`factorise` gave for all layers, where it was computed already.

        Raises:
            RuntimeError: If a layer has failed more often in a row than ``max_failures``.
        """
        wanted = self._mask(due) & self.totals.grounded()
        new, succeeded = self.factorise() if outcome is None else outcome
        tried = [d and layer.fired for d, layer in zip(due, self.layers, strict=True)]
        reached = wanted if self._reduced else self._mask(tried)
        failed = self.factors.replace(new, succeeded, wanted, reached, step)
        self._attempted = [a or t for a, t in zip(self._attempted, tried, strict=True)]
        if self.device.type != "cpu" or bool(failed.any()):
            self.verdict.post(self.factors.failures * failed, self.totals.means())
        self.verdict.report()
        if self._curvature.restarts(self.shape):
            self.totals.restart(wanted)

    def _mask(self, flags: Sequence[bool]) -> Tensor:
        """Put flags on the device with fills, which wait for nothing."""
        mask = torch.full((len(flags),), all(flags), device=self.device)
        for index in [] if all(flags) else [i for i, flag in enumerate(flags) if flag]:
            mask[index].fill_(True)
        return mask

    # --- gradients ---------------------------------------------------------------------------

    def precondition(self) -> dict[Tensor, Tensor]:
        """Precondition the gradients of the stack's layers.

        Returns:
            Parameter to preconditioned gradient, for those that have a gradient.
        """
        parts: dict[Tensor, Tensor] = {}
        for layer in self.layers:
            if layer.part.is_empty and layer.weight.grad is not None:
                parts[layer.weight] = local_gradient(layer.weight)
        for layers in self._batches():
            weights, biases = zip(*(layer.gradients() for layer in layers), strict=True)
            place = slice(layers[0].index, layers[-1].index + 1)
            action = {name: value[place] for name, value in self.factors.action().items()}
            if layers[0].part.groups < self.shape.groups:
                first = layers[0].part.first_group
                groups = slice(first, first + layers[0].part.groups)
                action = {name: value[:, groups] for name, value in action.items()}
            bias = _stack(biases) if self.bias else None
            weight, bias = self._curvature.precondition(_stack(weights), bias, action)
            for index, layer in enumerate(layers):
                parts.update(layer.place(weight[index], None if bias is None else bias[index]))
        return parts

    def _batches(self) -> Iterator[list[Layer]]:
        """Runs of layers that have a gradient, as long as a batch of their matrices may be."""
        batch: list[Layer] = []
        limit = _BATCH_ELEMENTS.get(self.device.type, _ELEMENTS)
        most = max(1, limit // max(1, local(self.layers[0].weight).numel()))
        for layer in self.layers:
            ready = layer.weight.grad is not None and not layer.part.is_empty
            if batch and (not ready or len(batch) == most):
                yield batch
                batch = []
            if ready:
                batch.append(layer)
        if batch:
            yield batch


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    """Stack what the layers of a batch give, without a copy for one layer."""
    return torch.stack(list(matrices)) if len(matrices) > 1 else matrices[0].unsqueeze(0)
