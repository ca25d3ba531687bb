"""What an optimizer needs of a training step, and the one step that serves all of them."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nysact.experiments.losses import LossFunction


class Needs(Enum):
    """What an optimizer's ``step`` needs."""

    GRADIENT = "gradient"  # in ``param.grad``
    GRAPH = "graph"  # gradients with their graph, as by ``backward(create_graph=True)``
    CLOSURE = "closure"  # evaluates the batch, and may be called several times


def needs_of(optimizer: Optimizer) -> Needs:
    """Read what the next step needs from the attribute ``needs``, which may change."""
    # accelerate's wrapper has the optimizer in an attribute.
    inner = getattr(optimizer, "optimizer", optimizer)
    needs = getattr(inner, "needs", Needs.GRADIENT)
    assert isinstance(needs, Needs)
    return needs


def training_step(
    model: Callable[[Tensor], Any],
    optimizer: Optimizer,
    loss_function: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Tensor:
    """Take one step on one batch, whatever the optimizer needs.

    Args:
        model: The model, or a function that calls it.
        optimizer: Any optimizer of its parameters.
        loss_function: Maps outputs and targets to the mean loss of the batch.
        inputs: The batch.
        targets: What the outputs are compared with.
        backward: Sets the gradients of a loss, where no more is needed.

    Returns:
        The loss before the step, a tensor on the device, so that nothing waits for it.
    """
    needs = needs_of(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_function(model(inputs), targets)
        if needs is Needs.GRAPH:
            keep_graph(loss, optimizer)
        else:
            backward(loss)
        return loss

    if needs is Needs.CLOSURE:
        value = optimizer.step(closure)  # type: ignore[arg-type]
        return torch.as_tensor(value).detach()
    loss = closure()
    optimizer.step()
    if needs is Needs.GRAPH:
        # The gradients hold the graph, and with it all activations.
        optimizer.zero_grad()
    return loss.detach()


def keep_graph(loss: Tensor, optimizer: Optimizer) -> None:
    """Set gradients that can be differentiated once more."""
    # backward(create_graph=True) warns of a reference cycle, which training_step breaks.
    params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    gradients = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient
