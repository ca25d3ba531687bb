"""What a caller passes to ``compare``, checked before anything is trained."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

from nysact.experiments.baselines import find
from nysact.experiments.config import OWN, Config
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded

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

    def maker(self, config: Config) -> MakeOptimizer | None:
        """What makes the optimizer with the rate of a run, if its name does not."""
        make, rate = self.make, config.optimizer.options.get("lr")
        if make is None or rate == self.options.get("lr"):
            return make

        def with_rate(model: nn.Module) -> Optimizer:
            optimizer = make(model)
            for group in optimizer.param_groups:
                group["lr"] *= rate / self.options["lr"]
            return optimizer

        return with_rate


def candidates(optimizers: Optimizers, model: nn.Module) -> list[Candidate]:
    """Read the optimizers by their names and settings; ``model`` is one to try functions on."""
    pairs = (
        optimizers.items()
        if isinstance(optimizers, Mapping)
        else [(name, {}) for name in optimizers]
    )
    found = [candidate(label, value, model) for label, value in pairs]
    for label, count in Counter(each.label for each in found).items():
        if count > 1:
            raise ExperimentError(
                f"optimizers has {label!r} twice: expected different labels, such as "
                "{'rank 10': ('nysact', {'rank': 10}), 'rank 20': ('nysact', {'rank': 20})}"
            )
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


def size_of(dataset: Any, name: str) -> int:
    """The length of a data set whose samples are pairs."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or not len(dataset):
        raise ExperimentError(
            f"{name} is a {type(dataset).__name__}: expected a data set with a length from 1 up, "
            "whose samples an index picks, such as torch.utils.data.TensorDataset"
        )
    with seeded(0):
        sample = dataset[0]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise ExperimentError(
            f"{name}[0] is a {type(sample).__name__}: expected a pair of an input and a target"
        )
    return len(dataset)


def made_model(model: Callable[[], nn.Module]) -> nn.Module:
    """Make a model, and make sure that the next call makes another one."""
    if isinstance(model, nn.Module) or not callable(model):
        raise ExperimentError(
            f"model is a {type(model).__name__}: expected a function that makes a new model, such "
            "as lambda: Net(10), so that every training starts from new weights"
        )
    with seeded(0):
        made, other = model(), model()
    if not isinstance(made, nn.Module):
        raise ExperimentError(f"model() is a {type(made).__name__}: expected a torch.nn.Module")
    if other is made:
        raise ExperimentError(
            "model() returned the same model twice, so that one training would continue another: "
            "expected a new model on every call, as from lambda: Net(10)"
        )
    return made


def facts_of(model: nn.Module) -> dict[str, Any]:
    """What tells a model from another in a run's settings: its class and its size."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"class": type(model).__qualname__, "parameters": parameters}


def check_target(loss: Any, target: Any) -> None:
    """Refuse the target of a regression where the loss is the cross-entropy of the default."""
    value = torch.as_tensor(target)
    if loss is not F.cross_entropy or not value.is_floating_point():
        return
    is_distribution = value.dim() > 0 and len(value) > 1 and bool((value >= 0).all())
    if not (is_distribution and torch.allclose(value.sum(0), torch.ones(()).to(value))):
        raise ExperimentError(
            f"the target of train_set[0] has the type {value.dtype}, but the default loss is the "
            "cross-entropy, which takes class numbers: for a regression give a loss, such as "
            "loss=torch.nn.functional.mse_loss; for classes give integers"
        )


def check_held_out(size: int, validation_size: int) -> None:
    """Refuse to tune without samples to choose by."""
    if not validation_size:
        raise ExperimentError(
            "tune chooses learning rates by held-out samples, and validation_size is 0: hold out a "
            f"part of the {size} training samples, such as validation_size={max(1, size // 10)}"
        )
