"""What a device found, read by the host without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class Verdict:
    """Small integers that a device computes and the host reads once they have arrived."""

    def __init__(self) -> None:
        self._numbers: Tensor | None = None
        self._arrived: torch.Event | None = None

    def post(self, numbers: Tensor) -> None:
        """Send numbers to the host; unread ones are replaced.

        Args:
            numbers: Integers, ``(n,)``.
        """
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._arrived = None
        if numbers.device.type != "cpu":
            self._arrived = torch.Event(numbers.device)
            self._arrived.record()

    def read(self) -> list[int]:
        """Read what has arrived.

        Returns:
            The numbers, once; nothing while they are under way or if there are none.
        """
        if self._numbers is None or (self._arrived is not None and not self._arrived.query()):
            return []
        numbers: list[int] = self._numbers.tolist()
        self._numbers = self._arrived = None
        return numbers
