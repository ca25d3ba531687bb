"""The optimizers of a comparison: names, names with settings, or functions that make one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nysact.experiments.baselines import find
from nysact.experiments.config import OWN
from nysact.experiments.errors import ExperimentError

Settings = Mapping[str, Any]
MakeOptimizer = Callable[[nn.Module], Optimizer]
Optimizers = Sequence[str] | Mapping[str, Settings | tuple[str, Settings] | MakeOptimizer]
# What a configuration can hold of an optimizer's options.
PLAIN = (bool, int, float, str, list, type(None))


@dataclass(frozen=True)
class Candidate:
    """An optimizer that takes part, by its name or by the function that makes it."""

    label: str
    name: str
    options: Settings = field(default_factory=dict)
    make: MakeOptimizer | None = None


def candidates(optimizers: Optimizers, model: nn.Module) -> list[Candidate]:
    """Read what :func:`~nysact.experiments.compare` takes; ``model`` is one to try functions on."""
    given: Mapping[str, Any] = (
        optimizers if isinstance(optimizers, Mapping) else {name: {} for name in unique(optimizers)}
    )
    found = [candidate(label, value, model) for label, value in given.items()]
    unique([each.label for each in found])
    return found


def candidate(label: str, value: Any, model: nn.Module) -> Candidate:
    """Read one entry of the optimizers; a name without a label takes the optimizer's title."""
    if callable(value):
        return Candidate(label, OWN, options_of(value(model), label), value)
    pair = isinstance(value, tuple | list) and len(value) == 2
    name, settings = value if pair else (label, value)
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        raise ExperimentError(
            f"optimizers[{label!r}] is {value!r}: expected settings such as {{'lr': 0.05}}, an "
            "optimizer's name and settings such as ('nysact', {'rank': 20}), or a function that "
            "makes an optimizer for a model"
        )
    return Candidate(label if pair else find(name).title, name, settings)


def options_of(optimizer: Any, label: str) -> dict[str, Any]:
    """The options of an optimizer that can be written down, so that others are another run."""
    if not isinstance(optimizer, Optimizer):
        raise ExperimentError(
            f"optimizers[{label!r}] makes a {type(optimizer).__name__}: expected a "
            "torch.optim.Optimizer of the model that it is given"
        )
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in optimizer.defaults.items()}
    kept = {k: v for k, v in lists.items() if isinstance(v, PLAIN)}
    return {"class": type(optimizer).__name__, **kept}


def unique(labels: Sequence[str]) -> Sequence[str]:
    """Make sure that no label occurs twice."""
    for label in labels:
        if list(labels).count(label) > 1:
            raise ExperimentError(
                f"optimizers has {label!r} twice: expected different labels, such as "
                "{'rank 10': ('nysact', {'rank': 10}), 'rank 20': ('nysact', {'rank': 20})}"
            )
    return labels
