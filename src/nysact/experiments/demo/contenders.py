"""The optimizers of the demo and their settings."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from nysact.experiments.baselines.registry import find, in_words


@dataclass(frozen=True)
class Contender:
    """How to make an optimizer for a model.

    Args:
        name: The optimizer's name in tables and pictures.
        settings: Its settings but for the learning rate, in words.
        build: Makes it from a model and a learning rate.
    """

    name: str
    settings: str
    build: Callable[[nn.Module, float], Optimizer]


def contender(name: str) -> Contender:
    """Make a contender of an optimizer's default settings.

    Args:
        name: Its name in the registry.

    Returns:
        The contender.
    """
    entry = find(name)
    settings = {key: value for key, value in entry.defaults.items() if key != "lr"}
    return Contender(entry.title, in_words(settings), lambda model, lr: entry.build(model, lr=lr))


CONTENDERS = tuple(contender(name) for name in ("sgd", "adamw", "nysact"))
