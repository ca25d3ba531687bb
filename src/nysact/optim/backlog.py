"""Statistics that wait to be taken together."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from nysact.layers.linear_map import LinearMap

if TYPE_CHECKING:
    from nysact.optim.observed import Observed

# Bytes of sampled inputs that may wait: little beside a model's activations, and they stay in a
# processor's cache.
LIMIT = 2**22


class _Call(NamedTuple):
    observed: Observed
    place: int
    linear_map: LinearMap
    offset: int


class Backlog:
    """Observed calls whose statistics are still to be computed.

    Between the large operations of a forward, each small one finds neither its code nor its data
    in the processor's cache; one after the other they take a third of the time. They are worked
    off when enough wait, when the backward pass reaches a weight, and at the latest by the step.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._bytes = 0

    def add(
        self, observed: Observed, place: int, linear_map: LinearMap, offset: int, size: int
    ) -> None:
        """Put off the statistics of one call.

        Args:
            observed: What the layer's stack observed.
            place: The layer's place in the stack.
            linear_map: The map that the chosen inputs induce, copies which nobody overwrites.
            offset: Samples that the layer's earlier calls contributed.
            size: Bytes of the chosen inputs.
        """
        self._calls.append(_Call(observed, place, linear_map, offset))
        self._bytes += size
        if self._bytes > LIMIT:
            self.work_off()

    def work_off(self) -> None:
        """Compute what was put off."""
        if not self._calls:
            return
        calls, self._calls, self._bytes = self._calls, [], 0
        with torch.no_grad():
            for observed, place, linear_map, offset in calls:
                with uncast(observed.device.type):
                    observed.add(place, linear_map, offset)

    def drop(self) -> None:
        """Forget what was put off."""
        self._calls.clear()
        self._bytes = 0


def uncast(device: str) -> AbstractContextManager[Any]:
    """Give a context without autocast.

    Args:
        device: Kind of the device.

    Returns:
        One that does nothing where nothing is cast, which takes less time for each layer.
    """
    casting = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if casting else nullcontext()
