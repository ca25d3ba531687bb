"""Train one model with several optimizers over several seeds, and sum up what came of it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nysact.experiments.data.images import Data
from nysact.experiments.demo.contenders import Contender
from nysact.experiments.demo.train import Run, train_in_turns
from nysact.experiments.randomness import seeded_model
from nysact.experiments.state_size import state_bytes
from nysact.experiments.timing import relative_time


@dataclass(frozen=True)
class Entry:
    """An optimizer that takes part, and its learning rate."""

    contender: Contender
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """What each seed's training is like.

    Args:
        entries: The optimizers; the first is the reference for time.
        build_model: Makes the untrained model.
        epochs: Passes over the training set.
        batch_size: Samples a batch.
        seeds: One training of each optimizer for each seed.
    """

    entries: Sequence[Entry]
    build_model: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    seeds: Sequence[int]


@dataclass(frozen=True)
class Progress:
    """How far a comparison is: the seed in training, its finished epochs, its runs so far."""

    seed: int
    epoch: int
    runs: Sequence[Run]


@dataclass(frozen=True)
class Summary:
    """What came of one optimizer.

    Args:
        name: The optimizer.
        settings: Its settings but for the learning rate, in words.
        learning_rate: Its learning rate.
        losses: Training loss of each epoch, for each seed.
        accuracies: Test accuracy after each epoch in percent, for each seed.
        relative_time: Time a step, relative to the first optimizer.
        state_bytes: Size of the optimizer's state.
    """

    name: str
    settings: str
    learning_rate: float
    losses: Sequence[Sequence[float]]
    accuracies: Sequence[Sequence[float]]
    relative_time: float
    state_bytes: int


def compare(
    plan: Plan,
    data: Data,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Progress], None] = lambda _: None,
) -> list[Summary]:
    """Train with every optimizer for every seed.

    The runs of a seed start from the same weights, see the same batches and take turns.

    Args:
        plan: What to train.
        data: The data, on the device on which to train.
        on_step: Called after each round of steps.
        on_epoch: Called after each epoch.

    Returns:
        One summary for each optimizer, in the plan's order.
    """
    trained = []
    for seed in plan.seeds:
        runs = start_runs(plan, data, seed)
        for epoch in train_in_turns(runs, data, plan.epochs, plan.batch_size, seed, on_step):
            on_epoch(Progress(seed, epoch, runs))
        trained.append(runs)
    references = [runs[0].seconds for runs in trained]
    return [
        summarise(entry, runs, references)
        for entry, runs in zip(plan.entries, zip(*trained, strict=True), strict=True)
    ]


def start_runs(plan: Plan, data: Data, seed: int) -> list[Run]:
    """Make the run of each optimizer for one seed.

    Args:
        plan: What to train.
        data: The data, on the device on which to train.
        seed: The seed of the model's weights.

    Returns:
        The runs, each with a copy of the same model.
    """
    model = seeded_model(plan.build_model, seed)
    # Training convolutions on the CPU is about a third faster in this layout.
    model.to(data.train.images.device).to(memory_format=torch.channels_last)
    steps = plan.epochs * (len(data.train) // plan.batch_size)
    runs = []
    for entry in plan.entries:
        own = copy.deepcopy(model)
        optimizer = entry.contender.build(own, entry.learning_rate)
        runs.append(Run(entry.contender.name, own, optimizer, steps))
    return runs


def summarise(entry: Entry, runs: Sequence[Run], references: Sequence[Sequence[float]]) -> Summary:
    """Sum up the runs of one optimizer.

    Args:
        entry: The optimizer.
        runs: Its run for each seed.
        references: For each seed, the reference's step times.

    Returns:
        The summary.
    """
    return Summary(
        name=entry.contender.name,
        settings=entry.contender.settings,
        learning_rate=entry.learning_rate,
        losses=[run.losses for run in runs],
        accuracies=[run.accuracies for run in runs],
        relative_time=relative_time([run.seconds for run in runs], references),
        state_bytes=state_bytes(runs[0].optimizer),
    )
