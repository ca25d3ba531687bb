"""What the optimizers are compared on: data, a model, and defaults for the training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from nysact.experiments.data.digits import load_digits
from nysact.experiments.data.fashion_mnist import load_fashion_mnist
from nysact.experiments.data.images import Data
from nysact.experiments.models import CifarResNet, digits_network


@dataclass(frozen=True)
class Task:
    """A classification task.

    Args:
        title: Data and model in words.
        load: Loads the data, from a folder if one is given.
        takes_folder: Whether the data may be in a folder that the user names.
        build_model: Makes the untrained model.
        train_size: Training samples used by default, ``None`` for all.
        epochs: Default number of epochs.
        batch_size: Default samples a batch.
        learning_rates: The learning rate for each optimizer.
        threads: Threads on the CPU, ``None`` for torch's default.
    """

    title: str
    load: Callable[[Path | None], Data]
    takes_folder: bool
    build_model: Callable[[], nn.Module]
    train_size: int | None
    epochs: int
    batch_size: int
    learning_rates: Mapping[str, float]
    threads: int | None = None


TASKS: Mapping[str, Task] = {
    "digits": Task(
        title="Digits, small convolutional network",
        load=lambda _: load_digits(),
        takes_folder=False,
        build_model=digits_network,
        train_size=None,
        epochs=15,
        batch_size=32,
        # Accuracy on held-out training images, % (benchmarks/learning_rates.py):
        #   SGD     0.03: 98.70   0.1: 98.60   0.3: 99.00    1: 98.90    3: 94.80
        #   AdamW   3e-4: 97.60  1e-3: 98.90  3e-3: 99.40  1e-2: 98.70  3e-2: 98.90
        #   NysAct  0.03: 98.70   0.1: 98.70   0.3: 98.80    1: 98.60    3: 98.60
        learning_rates={"SGD": 0.3, "AdamW": 3e-3, "NysAct": 0.3},
        # The tensors are small: a second thread gains little, and on a busy machine the two
        # wait for each other many times as long as they compute.
        threads=1,
    ),
    "fashion-mnist": Task(
        title="Fashion-MNIST, ResNet-20",
        load=load_fashion_mnist,
        takes_folder=True,
        build_model=lambda: CifarResNet(20, in_channels=1),
        train_size=5_000,
        epochs=3,
        batch_size=128,
        # The rates of the paper's recipes for CIFAR, with the same batch size.
        learning_rates={"SGD": 0.1, "AdamW": 1e-3, "NysAct": 0.1},
    ),
}
