"""Loss and accuracy on the test and validation batches of all processes."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nysact.experiments.data.loaders import Batches
from nysact.experiments.losses import LossFunction
from nysact.experiments.run.problem import Problem


def evaluate(model: nn.Module, problem: Problem, accelerator: Accelerator) -> dict[str, float]:
    """Measure a model."""
    measured = {}
    loss_function = problem.evaluation_loss or problem.loss
    model.eval()
    for part, batches in problem.evaluated.items():
        loss, accuracy = measure(model, batches, loss_function, accelerator)
        measured[f"{part}_loss"] = loss
        if accuracy is not None and problem.loss_metric is None:
            measured[f"{part}_accuracy"] = accuracy
    if problem.loss_metric is not None:
        name, factor = problem.loss_metric
        measured[name] = factor * measured["test_loss"]
    if problem.closed_loop is not None:
        measured |= problem.closed_loop(model)
    model.train()
    return measured


@torch.no_grad()
def measure(
    model: nn.Module, batches: Batches, loss: LossFunction, accelerator: Accelerator
) -> tuple[float, float | None]:
    """Give the mean loss, and for a classifier its accuracy in percent."""
    # Summed by the host in double precision, whatever the device has.
    sums = [0.0, 0.0, 0.0]
    classifies = False
    for inputs, targets in batches:
        outputs = model(inputs)
        sums[0] += float(loss(outputs, targets)) * len(inputs)
        sums[1] += len(inputs)
        scores = getattr(outputs, "logits", outputs)
        if are_classes(scores, targets):
            classifies = True
            sums[2] += int((scores.argmax(-1) == targets).sum())
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(torch.tensor(sums, device=accelerator.device)).tolist()
    total, samples, correct = sums
    return total / samples, 100 * correct / samples if classifies else None


def are_classes(scores: Any, targets: Tensor) -> bool:
    """Whether outputs are scores (n, classes) and targets class numbers (n)."""
    return (
        isinstance(scores, Tensor)
        and scores.dim() == 2
        and targets.shape == scores.shape[:1]
        and not targets.is_floating_point()
    )
