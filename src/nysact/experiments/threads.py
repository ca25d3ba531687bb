"""How many threads compute on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Compute with so many threads in the body.

    Args:
        number: Threads, or ``None`` to change nothing.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
