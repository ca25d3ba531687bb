"""The base of the optimizers that are written here."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


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
