"""The learning rate over the course of a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nysact.experiments.config import Schedule


def factor(schedule: Schedule, step: int, steps: int, steps_an_epoch: int) -> float:
    """The factor of the learning rate: 1 at the end of the warm-up, then a cosine down to 0."""
    warmup = schedule.warmup_steps or schedule.warmup_epochs * steps_an_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.name == "constant":
        return 1.0
    grain = steps_an_epoch if schedule.every == "epoch" else 1
    done = (step - warmup) // grain * grain
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done / max(1, steps - warmup))))


def make_schedule(
    optimizer: Optimizer, schedule: Schedule, steps: int, steps_an_epoch: int
) -> LambdaLR:
    """Make a scheduler, to be stepped after each of the ``steps`` of the optimizer."""
    return LambdaLR(optimizer, lambda step: factor(schedule, step, steps, steps_an_epoch))
