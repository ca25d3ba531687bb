"""What GGT and M-FAC share: a window of past gradients that acts through its Gram matrix."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.optimizer import OwnOptimizer, buffer_of


class WindowOptimizer(OwnOptimizer):
    """Momentum on gradients preconditioned by the last r of them.

    Let the columns of G be the last r gradients of all parameters together, g = G e the newest,
    and K = G^T G their Gram matrix, r x r. A function of G G^T maps g to G c, where c depends on K
    alone: the large matrix is never formed, and g has no part outside the window that would need
    separate treatment. A step updates one row of K and costs O(r) inner products.

    All groups share one window; the weight decay is added to the gradient before all else.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if defaults["window"] < 1:
            raise ValueError(f"window={defaults['window']}: expected at least 1 gradient")
        super().__init__(params, defaults)

    @abstractmethod
    def coefficients(self, gram: Tensor, row: int) -> Tensor:
        """Give a coefficient (r) for each gradient, from inner products (r, r); ``row`` is newest.

        The inner products are zero where there is no gradient yet.
        """

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
