"""How much an optimizer keeps."""

from collections.abc import Iterator

from torch import Tensor
from torch.optim import Optimizer


def state_bytes(optimizer: Optimizer) -> int:
    """Count the bytes of all tensors in an optimizer's state.

    Each tensor counts with its own elements, also where several share one storage.

    Args:
        optimizer: The optimizer, after its first step.

    Returns:
        The bytes.
    """
    return sum(
        tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for tensor in tensors_in(state)
    )


def tensors_in(value: object) -> Iterator[Tensor]:
    """Go through the tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
