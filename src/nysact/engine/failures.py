"""Failed refreshes, reported without a device sync."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Tensors


class RefreshFailures:
    """A small table that the device computes, read by the host once it has arrived.

    Several ranks act on tables of their own at the same step, but each table arrives at its own
    time: with ``together`` it is read only where the reader waits for it.
    """

    def __init__(
        self, names: Sequence[str], options: Mapping[str, Any], *, together: bool = False
    ) -> None:
        self._together = together
        self._names = names
        self._options = options
        self._statistics: tuple[str, ...] = ()
        self._numbers: Tensor | None = None
        self._arrived: torch.Event | None = None

    def post(self, failures: Tensor, statistics: Tensors) -> None:
        """Send failures in a row, (layers,), and the range of the statistics to the host."""
        self._statistics = tuple(statistics)
        ends = [end for value in statistics.values() for end in value.flatten(1).aminmax(dim=1)]
        numbers = torch.stack([failures.to(ends[0].dtype), *ends], dim=1)
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._arrived = None
        if numbers.device.type != "cpu":
            self._arrived = torch.Event(numbers.device)
            self._arrived.record(torch.accelerator.current_stream(numbers.device))

    def report(self, *, wait: bool = False) -> None:
        """Warn once of each failure that has arrived; raise beyond ``max_failures`` in a row."""
        numbers = self._read(wait=wait)
        for name, (count, *ends) in zip(self._names, numbers, strict=False):
            if count:
                self._report(name, int(count), ends)

    def _read(self, *, wait: bool) -> list[list[float]]:
        if self._numbers is None:
            return []
        if self._arrived is not None:
            if wait:
                self._arrived.synchronize()
            elif self._together or not self._arrived.query():
                return []
        numbers: list[list[float]] = self._numbers.tolist()
        self._numbers = self._arrived = None
        return numbers

    def _report(self, name: str, count: int, ends: Sequence[float]) -> None:
        ranges = zip(ends[::2], ends[1::2], strict=True)
        values = dict(zip(self._statistics, ranges, strict=True))
        message = (
            f"the factorisation for layer {name!r} failed {count} time(s) in a row, in float64 and "
            f"with an enlarged shift too; its statistics range over {values}"
        )
        if count > self._options["max_failures"]:
            raise RuntimeError(
                f"{message}. max_failures={self._options['max_failures']} is exceeded: look for "
                "inputs of this layer that explode or vanish, lower the learning rate, or leave "
                f"the layer out with exclude=[{name!r}]"
            )
        warnings.warn(f"{message}: its previous factors stay in use", stacklevel=2)
