"""The learning rate over the course of a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nysact.experiments.config import Schedule


def factor(schedule: Schedule, step: int, steps: int, steps_an_epoch: int) -> float:
    """Give what the learning rate is multiplied with.

    Args:
        schedule: The kind of schedule.
        step: Steps done so far.
        steps: Steps of the whole run.
        steps_an_epoch: Steps of an epoch.

    Returns:
        1 at the end of the warm-up; a cosine goes from there to 0 at the end of the run.
    """
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
    """Make a scheduler, to be stepped after each step of the optimizer.

    Args:
        optimizer: The optimizer with its highest learning rate.
        schedule: The kind of schedule.
        steps: Steps of the whole run.
        steps_an_epoch: Steps of an epoch.

    Returns:
        The scheduler.
    """
    return LambdaLR(optimizer, lambda step: factor(schedule, step, steps, steps_an_epoch))
