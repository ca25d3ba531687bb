"""The base of the optimizers that are written here, and the training step that serves all."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
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
    """Take one step on one batch, whatever the optimizer needs; give the loss before it."""
    # The loss is a tensor on the device, so that nothing waits for it.
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


class OwnOptimizer(Optimizer):
    """Evaluates the closure, if any, and leaves the rest to :meth:`update`; counts its steps."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, {**defaults, "step": 0})

    @abstractmethod
    def update(self) -> None:
        """Update the parameters from their gradients."""

    def step(self, closure: Any = None) -> Any:
        """Do one step, and return the closure's loss or ``None``."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        with torch.no_grad():
            self.update()
        for group in self.param_groups:
            group["step"] += 1
        return loss

    def with_gradient(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Go through the parameters that have a gradient, each with its group."""
        for group in self.param_groups:
            yield from ((group, param) for param in group["params"] if param.grad is not None)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters that are trained."""
    return [param for param in model.parameters() if param.requires_grad]


def buffer_of(state: dict[str, Any], like: Tensor, name: str = "momentum_buffer") -> Tensor:
    """Find a tensor of a parameter's state, zero at first."""
    if name not in state:
        state[name] = torch.zeros_like(like)
    buffer: Tensor = state[name]
    return buffer


def check_positive(**settings: float) -> None:
    """Refuse settings that are not positive."""
    for name, value in settings.items():
        if value <= 0:
            raise ValueError(f"{name}={value}: expected a positive number")
