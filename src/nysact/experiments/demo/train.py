"""The training loop: an example of how the library is used.

``NysAct`` takes the model where other optimizers take its parameters; nothing else in the loop
knows which optimizer it runs. The step itself also serves optimizers that need more than a
gradient: see :mod:`nysact.experiments.baselines.needs`.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nysact.experiments import baselines
from nysact.experiments.data.images import Data, ImageSet, batches
from nysact.experiments.timing import stopwatch

EVALUATION_BATCH = 500


def training_step(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """Take one step on the cross-entropy of one batch.

    Args:
        model: The classifier.
        optimizer: Any optimizer of its parameters.
        images: The batch.
        labels: Its class numbers.

    Returns:
        The loss before the step, a tensor on the device, so that nothing waits for it.
    """
    return baselines.training_step(model, optimizer, F.cross_entropy, images, labels)


@torch.no_grad()
def accuracy(model: nn.Module, data: ImageSet) -> float:
    """Measure the percentage of samples that a model classifies rightly.

    Args:
        model: The classifier; it is in training mode again afterwards.
        data: The samples.

    Returns:
        The percentage.
    """
    model.eval()
    correct = sum(
        (model(images).argmax(dim=1) == labels).sum()
        for images, labels in zip(
            data.images.split(EVALUATION_BATCH), data.labels.split(EVALUATION_BATCH), strict=True
        )
    )
    model.train()
    return 100 * float(correct) / len(data)


def cosine_schedule(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Lower the learning rate from its value to 0 along half a cosine.

    Args:
        optimizer: The optimizer with its initial learning rate.
        steps: Calls of the schedule's ``step`` after which the learning rate is 0.

    Returns:
        The schedule, to be stepped after each step of the optimizer.
    """
    return LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))


class Run:
    """A model in training with an optimizer, and the record of how it goes.

    Args:
        name: What the record is of, such as the optimizer's name.
        model: The classifier.
        optimizer: The optimizer of its parameters.
        steps: Steps of the whole training, for the schedule of the learning rate.

    Attributes:
        losses: Mean loss over the batches of each epoch, each taken before its step.
        accuracies: Percentage of right answers on the test set after each epoch.
        seconds: Time of each step.
    """

    def __init__(self, name: str, model: nn.Module, optimizer: Optimizer, steps: int) -> None:
        self.name = name
        self.model = model
        self.optimizer = optimizer
        self.schedule = cosine_schedule(optimizer, steps)
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.seconds: list[float] = []
        self._epoch_losses: list[Tensor] = []

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one timed step."""
        with stopwatch(self.seconds, images.device):
            loss = training_step(self.model, self.optimizer, images, labels)
        self.schedule.step()
        self._epoch_losses.append(loss)

    def end_epoch(self, test: ImageSet) -> None:
        """Record the epoch's loss and evaluate; this is no part of the step times."""
        self.losses.append(float(torch.stack(self._epoch_losses).mean()))
        self._epoch_losses.clear()
        self.accuracies.append(accuracy(self.model, test))


def train_in_turns(
    runs: Sequence[Run],
    data: Data,
    epochs: int,
    batch_size: int,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Train several runs on the same batches, taking turns step by step.

    Taking turns makes their step times comparable on a machine whose speed varies. Who goes
    first changes from step to step, because the first finds the batch not yet in the cache.

    Args:
        runs: The runs.
        data: The data, on the device of the models.
        epochs: Passes over the training set.
        batch_size: Samples a batch.
        seed: Seed of the order and the augmentation of the samples.
        on_step: Called after each round of steps.

    Yields:
        The number of epochs done, after each.
    """
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for turn, (images, labels) in enumerate(
            batches(data.train, batch_size, generator, flip=data.flip)
        ):
            for place in range(len(runs)):
                runs[(turn + place) % len(runs)].step(images, labels)
            on_step()
        for run in runs:
            run.end_epoch(data.test)
        yield epoch + 1
