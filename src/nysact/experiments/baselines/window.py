"""What GGT and M-FAC share: a window of past gradients that acts through its Gram matrix."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.optimizer import OwnOptimizer, buffer_of


class WindowOptimizer(OwnOptimizer):
    """Momentum on gradients preconditioned by the last r of them."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if defaults["window"] < 1:
            raise ValueError(f"window={defaults['window']}: expected at least 1 gradient")
        super().__init__(params, defaults)

    @abstractmethod
    def coefficients(self, gram: Tensor, row: int) -> Tensor:
        """Give each gradient's coefficient (r) from inner products (r, r); ``row`` is newest."""

    def update(self) -> None:
        """Replace the oldest gradient, and step along the combination."""
        first = self.param_groups[0]
        row = first["step"] % first["window"]
        gram = self._record(row, first["window"])
        self._move(self.coefficients(gram, row))

    def _record(self, row: int, size: int) -> Tensor:
        """Put the gradients in the place of the oldest, and give the new Gram matrix."""
        first = self.param_groups[0]["params"][0]
        gram: Tensor = self.state[first].setdefault("gram", first.new_zeros(size, size))
        products = torch.zeros_like(gram[0])
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if "window" not in state:
                    state["window"] = param.new_zeros(size, *param.shape)
                newest = state["window"][row].zero_()
                if param.grad is not None:
                    newest.add_(param.grad).add_(param, alpha=group["weight_decay"])
                products += (state["window"].flatten(1) @ newest.flatten()).to(gram)
        gram[row] = products
        gram[:, row] = products
        return gram

    def _move(self, coefficients: Tensor) -> None:
        for group, param in self.with_gradient():
            window = self.state[param]["window"]
            direction = torch.tensordot(coefficients.to(param), window, dims=1)
            buffer = buffer_of(self.state[param], param)
            buffer.mul_(group["momentum"]).add_(direction, alpha=1 - group["dampening"])
            param.add_(buffer, alpha=-group["lr"])
