"""What data-parallel optimizers send between processes: counted on collectives, and computed.

python benchmarks/communication.py      # the table of docs/distributed.md, instantly
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nysact.experiments.formatting import markdown

# Collectives whose first argument is the output.
_OUTPUT_FIRST = (
    *("_allgather_base_", "_reduce_scatter_base_", "allgather_", "reduce_scatter_"),
    "alltoall_base_",
)


class Traffic(TorchDispatchMode):
    """Counts what this process hands to collectives inside a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, list[int]] = {}  # collective to elements of each call
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace in ("c10d", "_c10d_functional") and not func.__name__.startswith("wait"):
            name = func.__name__.split(".")[0]
            sent = args[1] if name in _OUTPUT_FIRST else args[0]
            tensors = [leaf for leaf in tree_leaves(sent) if isinstance(leaf, Tensor)]
            self.numbers.setdefault(name, []).append(sum(t.numel() for t in tensors))
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Weight:
    """Layers of one shape."""

    count: int
    groups: int  # of a layer, each with matrices of its own
    outputs: int  # m of a group
    inputs: int  # d of a group, the bias counted


@dataclass(frozen=True)
class Network:
    """The preconditioned layers of a network, and the settings it is trained with."""

    name: str
    weights: tuple[Weight, ...]
    rank: int
    cov_interval: int = 5
    inv_interval: int = 50

    def total(self, of: Callable[[int, int], float]) -> float:
        """Add up a function of outputs and inputs over all groups of all layers."""
        return sum(w.count * w.groups * of(w.outputs, w.inputs) for w in self.weights)


def _resnet50() -> Iterator[Weight]:
    yield Weight(1, 1, 64, 3 * 49)
    before = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        yield Weight(1, 1, width, before)
        yield Weight(blocks - 1, 1, width, 4 * width)
        yield Weight(blocks, 1, width, 9 * width)
        yield Weight(blocks, 1, 4 * width, width)
        yield Weight(1, 1, 4 * width, before)
        before = 4 * width
    yield Weight(1, 1, 1000, before + 1)


def _deit_small() -> Iterator[Weight]:
    width, depth = 384, 12
    yield Weight(1, 1, width, 3 * 16 * 16 + 1)
    yield Weight(depth, 1, 3 * width, width + 1)
    yield Weight(depth, 1, width, width + 1)
    yield Weight(depth, 1, 4 * width, width + 1)
    yield Weight(depth, 1, width, 4 * width + 1)
    yield Weight(1, 1, 1000, width + 1)


def _transformer_7b() -> Iterator[Weight]:
    width, hidden, depth, vocabulary = 4096, 11008, 32, 32000
    yield Weight(4 * depth, 1, width, width)
    yield Weight(2 * depth, 1, hidden, width)
    yield Weight(depth, 1, width, hidden)
    yield Weight(1, 1, vocabulary, width)


NETWORKS = (
    Network("ResNet-50", tuple(_resnet50()), rank=50),
    Network("DeiT-S", tuple(_deit_small()), rank=20),
    Network("7B transformer", tuple(_transformer_7b()), rank=64),
)


@dataclass(frozen=True)
class Scheme:
    """Numbers a step, averaged over steps, that are sent beside the gradients."""

    name: str
    reduced: Callable[[Network], float]  # which all processes add up
    gathered: Callable[[Network], float]  # which one process has and the others get

    def sent(self, network: Network, processes: int) -> float:
        """Return ``(2 reduced + gathered) (p - 1) / p``: what each sends with ring algorithms."""
        share = (processes - 1) / processes
        return (2 * self.reduced(network) + self.gathered(network)) * share


def _nothing(network: Network) -> float:
    return 0.0


def _sketches(network: Network) -> float:
    """A sketch, its trace and its row count, once a window."""
    rank = network.rank
    return network.total(lambda m, d: d * min(rank, d) + 2) / network.inv_interval


def _sketches_and_factors(network: Network) -> float:
    """Also a basis, a root, two numbers and a success flag, which are added up with zeros."""

    def size(m: int, d: int) -> int:
        r = min(network.rank, d)
        return d * r + r * r + 3

    return _sketches(network) + network.total(size) / network.inv_interval


def _covariances(network: Network) -> float:
    return network.total(lambda m, d: d * d + m * m) / network.cov_interval


def _inverses(network: Network) -> float:
    return network.total(lambda m, d: d * d + m * m) / network.inv_interval


def _gradients(network: Network) -> float:
    return network.total(lambda m, d: m * d)


# KAISA (Pauloski et al., 2021) names the two variants of K-FAC. Distributed Shampoo (Shi et al.,
# 2023) needs no statistics but the reduced gradients; each process computes some directions.
SCHEMES = (
    Scheme("NysAct", _sketches, _nothing),
    Scheme("NysAct, `share_refresh`", _sketches_and_factors, _nothing),
    Scheme("K-FAC of this library", _inverses, _nothing),
    Scheme("K-FAC, inverses sent", _covariances, _inverses),
    Scheme("K-FAC, directions sent", _covariances, _gradients),
    Scheme("Distributed Shampoo", _nothing, _gradients),
    Scheme("the gradients themselves", _gradients, _nothing),
)


def table(processes: tuple[int, ...] = (8, 64, 1024), element_size: int = 4) -> str:
    """Lay out the megabytes that each process sends a step."""
    cases = [(network, count) for network in NETWORKS for count in processes]
    heads = [f"{network.name}, {count}" for network, count in cases]
    rows = []
    for scheme in SCHEMES:
        values = [scheme.sent(*case) * element_size / 1e6 for case in cases]
        cells = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values]
        rows.append([scheme.name, *cells])
    return markdown(["MB a step and process", *heads], rows)


def weights_of(optimizer: Any) -> tuple[Weight, ...]:
    """List the layers that an optimizer of this library preconditions."""
    layers = dict.fromkeys(optimizer.layers.values())
    return tuple(
        Weight(1, g.groups, g.out_features, g.in_features + layer.has_bias)
        for layer in layers
        for g in (layer.geometry,)
    )


if __name__ == "__main__":
    print(table())
