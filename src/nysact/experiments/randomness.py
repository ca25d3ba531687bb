"""The global random streams, and separate streams that a few numbers determine."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import nn

CPU = torch.device("cpu")


def stream(*numbers: int | str) -> torch.Generator:
    """Make a generator that depends on all the numbers and on nothing else."""
    return torch.Generator().manual_seed(mixed(*numbers))


def mixed(*numbers: int | str) -> int:
    """Mix numbers into one of 63 bits."""
    digest = hashlib.sha256("/".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def random_state(device: torch.device = CPU) -> dict[str, Any]:
    """Copy the state of the global streams of Python, NumPy and torch."""
    legacy: Any = numpy.random.get_state(legacy=True)
    name, keys, *rest = legacy
    state = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype("int64")), *map(float, rest)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device = CPU) -> None:
    """Put the global streams back into a state that :func:`random_state` copied."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    legacy = (name, keys.numpy().astype("uint32"), int(position), int(has_gauss), gauss)
    numpy.random.set_state(legacy)
    torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed the global streams in the body, and restore them afterwards."""
    # Processes that read data must not ask for an accelerator, so it is named where it is meant.
    before = random_state(device)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before, device)


def start_streams(seed: int, process: int = 0) -> None:
    """Start the streams that a training draws from, such as the masks of dropout."""
    # The first process has torch's stream of the seed; the others differ, so that they draw others.
    own = seed if process == 0 else mixed(seed, "process", process)
    torch.manual_seed(own)
    if process > 0:
        random.seed(own)
        numpy.random.seed(own % 2**32)


def seeded_model(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a model whose random weights a seed determines, and leave the global stream alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
