"""The losses: cross-entropy of classifiers and language models, squared error of the rest."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

LossFunction = Callable[[Any, Tensor], Tensor]


def cross_entropy(label_smoothing: float = 0.0) -> LossFunction:
    """Make the mean cross-entropy, of outputs that are scores or have ``logits``."""

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        scores: Tensor = getattr(outputs, "logits", outputs)  # (..., classes)
        if not targets.is_floating_point():  # class numbers (...), else shares (..., classes)
            scores, targets = scores.flatten(0, -2), targets.flatten()
        return F.cross_entropy(scores, targets, label_smoothing=label_smoothing)

    return loss


def relative_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The norm of the error relative to that of the targets, over all samples together."""
    error: Tensor = (outputs - targets).norm() / targets.norm()
    return error


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sum the squared errors of each sample, and give the mean over samples."""
    return (outputs.flatten(1) - targets.flatten(1)).square().sum(1).mean()
