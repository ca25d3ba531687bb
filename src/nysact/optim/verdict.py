"""What a device found, read by the host without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class Verdict:
    """A small table that a device computes and the host reads once it has arrived.

    Args:
        together: Whether several processes act on tables of their own at the same step. When each
            arrives differs, so that it is read where the reader is willing to wait alone.
    """

    def __init__(self, *, together: bool = False) -> None:
        self._together = together
        self._numbers: Tensor | None = None
        self._arrived: torch.Event | None = None

    def post(self, numbers: Tensor) -> None:
        """Send numbers to the host; unread ones are replaced.

        Args:
            numbers: The table.
        """
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._arrived = None
        if numbers.device.type != "cpu":
            self._arrived = torch.Event(numbers.device)
            self._arrived.record(torch.accelerator.current_stream(numbers.device))

    def read(self, *, wait: bool = False) -> list[list[float]]:
        """Read what has arrived.

        Args:
            wait: Whether to wait for what is under way.

        Returns:
            Its rows, once; none while it is under way or if there is none.
        """
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
