"""Do the covariances of a network stay bounded during training, as assumption 5.3 demands?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Optimizer

from nysact import NysAct
from nysact.experiments.data.augmentation import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.data.loaders import DeviceLoader, Share
from nysact.experiments.randomness import seeded
from nysact.experiments.run.covariances import Observer

BATCH = 32
RATE = 0.05
OPTIMIZERS: Mapping[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda model: SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4),
    "NysAct": lambda model: NysAct(model, lr=RATE),
}


@dataclass(frozen=True)
class Norms:
    """The Frobenius norms of a network's covariances during training."""

    optimizer: str
    steps: Sequence[int]
    layers: Mapping[str, Sequence[float]]  # layer to its norm at each of the steps

    def growth(self, layer: str) -> float:
        """Divide the largest norm of the second half of the training by that of the first."""
        norms = self.layers[layer]
        middle = len(norms) // 2
        return max(norms[middle:]) / max(norms[:middle])


def network() -> nn.Sequential:
    """Make a LeNet for images of 8x8 pixels, without normalisation, which would bound the norms."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def watch_norms(name: str, train: ImageSet, epochs: int, every: int) -> Norms:
    """Train the network with one of :data:`OPTIMIZERS`; measure the norms every few steps."""
    steps: list[int] = []
    layers: dict[str, list[float]] = {}
    with seeded(0):
        model = network()
        optimizer = OPTIMIZERS[name](model)
        observer = Observer(network, F.cross_entropy, (train.images, train.labels))
        loader = DeviceLoader(train, BATCH, 0, Augmentation(), Share())
        stream = (batch for epoch in range(epochs) for batch in loader.epoch(epoch))
        for step, (images, labels) in enumerate(stream):
            if step % every == 0:
                steps.append(step)
                for layer, norm in observer.norms(model).items():
                    layers.setdefault(layer, []).append(norm)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return Norms(name, steps, layers)
