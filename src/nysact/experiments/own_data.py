"""Checks of a caller's own model, data and loss before anything is trained."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded


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
