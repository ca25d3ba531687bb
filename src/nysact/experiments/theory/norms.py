"""Do the covariances of a network in training stay bounded, as assumption 5.3 demands?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from nysact import NysAct
from nysact.experiments.data.images import ImageSet, batches
from nysact.experiments.randomness import seeded
from nysact.experiments.run.covariances import Observer

BATCH = 32
RATE = 0.05


@dataclass(frozen=True)
class Norms:
    """The norms of a network's covariances over a training.

    Args:
        optimizer: What trained it.
        steps: When they were measured.
        layers: For each layer the Frobenius norm at each of the steps.
    """

    optimizer: str
    steps: Sequence[int]
    layers: Mapping[str, Sequence[float]]

    def growth(self, layer: str) -> float:
        """Divide the largest norm of the second half of the training by that of the first."""
        norms = self.layers[layer]
        middle = len(norms) // 2
        return max(norms[middle:]) / max(norms[:middle])


OPTIMIZERS: Mapping[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda model: SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4),
    "NysAct": lambda model: NysAct(model, lr=RATE),
}


def network() -> nn.Sequential:
    """Make a LeNet for images of 8x8 pixels, without normalisation, which would bound the norms."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def watch_norms(name: str, train: ImageSet, epochs: int, every: int) -> Norms:
    """Train the network, and measure the norms now and then.

    Args:
        name: A key of :data:`OPTIMIZERS`.
        train: The training set.
        epochs: Passes over it.
        every: Steps between measurements.

    Returns:
        The norms.
    """
    with seeded(0):
        model = network()
        optimizer = OPTIMIZERS[name](model)
        observer = Observer(network, F.cross_entropy, (train.images, train.labels))
        generator = torch.Generator().manual_seed(0)
        steps: list[int] = []
        layers: dict[str, list[float]] = {}
        step = 0
        for _ in range(epochs):
            for images, labels in batches(train, BATCH, generator):
                if step % every == 0:
                    steps.append(step)
                    for layer, norm in observer.norms(model).items():
                        layers.setdefault(layer, []).append(norm)
                take_step(model, optimizer, images, labels)
                step += 1
    return Norms(name, steps, layers)


def take_step(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor) -> None:
    """Take a step on the cross-entropy of a batch."""
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
