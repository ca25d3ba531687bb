"""What a device found, read by the host without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class Verdict:
    """A small table that a device computes and the host reads once it has arrived."""

    def __init__(self) -> None:
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

    def read(self) -> list[list[float]]:
        """Read what has arrived.

        Returns:
            Its rows, once; none while it is under way or if there is none.
        """
        if self._numbers is None or (self._arrived is not None and not self._arrived.query()):
            return []
        numbers: list[list[float]] = self._numbers.tolist()
        self._numbers = self._arrived = None
        return numbers
