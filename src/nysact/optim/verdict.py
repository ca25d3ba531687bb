"""Which layers a refresh failed, as a device finds it and the host reads it without waiting."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.curvature import Tensors
from nysact.optim.layer import Layer


class Verdict:
    """A small table that a device computes and the host reads once it has arrived.

    Args:
        layers: The layers that are judged, of one parameter group.
        together: Whether several processes act on tables of their own at the same step. When each
            arrives differs, so that it is read where the reader is willing to wait alone.
    """

    def __init__(self, layers: Sequence[Layer], *, together: bool = False) -> None:
        self._together = together
        self._layers = layers
        self._group = layers[0].group
        self._statistics: tuple[str, ...] = ()
        self._numbers: Tensor | None = None
        self._arrived: torch.Event | None = None

    def post(self, failures: Tensor, statistics: Tensors) -> None:
        """Send a table to the host; an unread one is replaced.

        Args:
            failures: How often in a row each layer failed, 0 for those that did not.
            statistics: What the factors were computed from, to tell the range of.
        """
        self._statistics = tuple(statistics)
        ends = [end for value in statistics.values() for end in value.flatten(1).aminmax(dim=1)]
        numbers = torch.stack([failures.to(ends[0].dtype), *ends], dim=1)
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._arrived = None
        if numbers.device.type != "cpu":
            self._arrived = torch.Event(numbers.device)
            self._arrived.record(torch.accelerator.current_stream(numbers.device))

    def report(self, *, wait: bool = False) -> None:
        """Warn of layers that a refresh failed, once; raise for one that never recovers.

        Args:
            wait: Whether to wait for what is under way.

        Raises:
            RuntimeError: If a layer has failed more often in a row than ``max_failures``.
        """
        if self._numbers is None:
            return
        if self._arrived is not None:
            if wait:
                self._arrived.synchronize()
            elif self._together or not self._arrived.query():
                return
        numbers: list[list[float]] = self._numbers.tolist()
        self._numbers = self._arrived = None
        for layer, (count, *ends) in zip(self._layers, numbers, strict=True):
            if count == 0:
                continue
            ranges = zip(ends[::2], ends[1::2], strict=True)
            values = dict(zip(self._statistics, ranges, strict=True))
            message = (
                f"the factorisation for layer {layer.name!r} failed {count:.0f} time(s) in a row, "
                f"in float64 and with an enlarged shift too; its statistics range over {values}"
            )
            if count > self._group["max_failures"]:
                raise RuntimeError(
                    f"{message}. max_failures={self._group['max_failures']} is exceeded: look for "
                    f"inputs of this layer that explode or vanish, lower the learning rate, or "
                    f"leave the layer out with exclude=[{layer.name!r}]"
                )
            warnings.warn(f"{message}: its previous factors stay in force", stacklevel=2)
