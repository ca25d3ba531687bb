"""Failed refreshes, reported without a device sync."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.curvature import Tensors


class RefreshFailures:
    """A small table that the device computes, and that the host reads at the next refresh."""

    def __init__(self, names: Sequence[str], options: Mapping[str, Any]) -> None:
        self._names = names
        self._options = options
        self._table: tuple[Sequence[str], Tensor] | None = None  # names of statistics, and numbers
        self._arrived: torch.Event | None = None

    def post(self, failures: Tensor, statistics: Tensors) -> None:
        """Send failures in a row, (layers,), and the range of the statistics to the host."""
        ends = [end for value in statistics.values() for end in value.flatten(1).aminmax(dim=1)]
        numbers = torch.stack([failures.to(ends[0].dtype), *ends], dim=1)
        self._table = list(statistics), numbers.to("cpu", non_blocking=True)
        if numbers.device.type != "cpu":
            self._arrived = torch.Event(numbers.device)
            self._arrived.record(torch.accelerator.current_stream(numbers.device))
        else:
            self.report()

    def report(self) -> None:
        """Warn once of each failure; raise beyond ``max_failures`` in a row."""
        if self._table is None:
            return
        if self._arrived is not None:
            self._arrived.synchronize()
        (statistics, numbers), self._table, self._arrived = self._table, None, None
        for name, (count, *ends) in zip(self._names, numbers.tolist(), strict=True):
            if count:
                ranges = zip(ends[::2], ends[1::2], strict=True)
                self._report(name, int(count), dict(zip(statistics, ranges, strict=True)))

    def _report(self, name: str, count: int, ranges: Mapping[str, tuple[float, float]]) -> None:
        message = (
            f"the factorisation for layer {name!r} failed {count} time(s) in a row, in float64 and "
            f"with an enlarged shift too; its statistics range over {ranges}"
        )
        limit = self._options["max_failures"]
        if count > limit:
            raise RuntimeError(
                f"{message}. max_failures={limit} is exceeded: look for inputs of this layer that "
                "explode or vanish, lower the learning rate, or leave the layer out with "
                f"exclude=[{name!r}]"
            )
        warnings.warn(f"{message}: its previous factors stay in use", stacklevel=2)
