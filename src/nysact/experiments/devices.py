"""Devices: choosing one, waiting for it, its threads, and the memory an optimizer keeps there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from nysact.experiments.errors import ExperimentError

# The key of the peak of memory in timing.json.
PEAK_MEMORY = "peak_memory"


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, or an accelerator if there is one, else the CPU."""
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(
            f"--device {name}: not available ({reason}); expected cpu, cuda, cuda:1, mps or "
            "similar; leave --device out to have one chosen"
        ) from error
    return device


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Compute with this many CPU threads in the body; ``None`` changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in an optimizer's state; shared storage counts once per tensor."""
    return sum(
        tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for tensor in tensors_in(state)
    )


def tensors_in(value: object) -> Iterator[Tensor]:
    """Go through the tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def peak_memory(device: torch.device) -> dict[str, int]:
    """On a GPU, the most bytes that tensors took and that torch reserved."""
    if device.type != "cuda":
        return {}
    return {
        PEAK_MEMORY: torch.cuda.max_memory_allocated(device),
        "peak_reserved_memory": torch.cuda.max_memory_reserved(device),
    }
