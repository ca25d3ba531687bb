"""GGT and M-FAC: a window of past gradients that acts through its Gram matrix."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.optimizer import OwnOptimizer, buffer_of, check_positive


class WindowOptimizer(OwnOptimizer):
    """Momentum on gradients preconditioned by the last r of them.

    Let the columns of G be the last r gradients of all parameters together, g = G e the newest,
    and K = G^T G their Gram matrix, r x r. A function of G G^T maps g to G c, where c depends on K
    alone: the large matrix is never formed, and g has no part outside the window that would need
    separate treatment. A step updates one row of K and costs O(r) inner products.

    All groups share one window; the weight decay is added to the gradient before all else.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        check_positive(window=defaults["window"])
        super().__init__(params, defaults)

    @abstractmethod
    def coefficients(self, gram: Tensor, row: int) -> Tensor:
        """Give a coefficient (r) of each gradient from inner products (r, r); ``row`` is newest."""

    def update(self) -> None:
        """Replace the oldest gradient, and step along the combination."""
        first = self.param_groups[0]
        row = first["step"] % first["window"]
        coefficients = self.coefficients(self._record(row, first["window"]), row)
        for group, param in self.with_gradient():
            window = self.state[param]["window"]
            direction = torch.tensordot(coefficients.to(param), window, dims=1)
            buffer = buffer_of(self.state[param], param)
            buffer.mul_(group["momentum"]).add_(direction, alpha=1 - group["dampening"])
            param.add_(buffer, alpha=-group["lr"])

    def _record(self, row: int, size: int) -> Tensor:
        """Put the gradients in the place of the oldest, and give the new Gram matrix."""
        first = self.param_groups[0]["params"][0]
        # Inner products are zero where there is no gradient yet.
        gram: Tensor = self.state[first].setdefault("gram", first.new_zeros(size, size))
        products = torch.zeros_like(gram[0])
        for group in self.param_groups:
            for param in group["params"]:
                window = buffer_of(self.state[param], param.expand(size, *param.shape), "window")
                newest = window[row].zero_()
                if param.grad is not None:
                    newest.add_(param.grad).add_(param, alpha=group["weight_decay"])
                products += (window.flatten(1) @ newest.flatten()).to(gram)
        gram[row] = products
        gram[:, row] = products
        return gram


class GGT(WindowOptimizer):
    """SGD with momentum on gradients preconditioned by ``((G G^T)^(1/2) + eps I)^-1``.

    From Agarwal, Bullins, Chen, Hazan, Singh, Zhang and Zhang, "Efficient full-matrix adaptive
    regularization" (ICML 2019), algorithm 1. The columns of G are the last ``window`` gradients,
    each attenuated by a factor ``beta2`` a step. With the singular values s and the right singular
    vectors V of G, both from the Gram matrix, the newest gradient g = G e becomes
    ``G V diag(1 / (s + eps)) V^T e``.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        *,
        momentum: float = 0.9,  # of the preconditioned gradient; released code: before it
        weight_decay: float = 5e-4,
        window: int = 200,
        beta2: float = 1.0,
        eps: float = 1e-4,
    ) -> None:
        check_positive(eps=eps)
        defaults = {"lr": lr, "momentum": momentum, "dampening": 0.0, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "window": window, "beta2": beta2, "eps": eps})

    def coefficients(self, gram: Tensor, row: int) -> Tensor:
        """Combine the window by the eigendecomposition of its Gram matrix."""
        group = self.param_groups[0]
        places = torch.arange(len(gram), device=gram.device)
        weights = group["beta2"] ** ((row - places) % len(gram)).double()
        weighted = weights[:, None] * gram.double() * weights
        eigenvalues, vectors = torch.linalg.eigh(weighted)
        inverse = 1 / (eigenvalues.clamp(min=0).sqrt() + group["eps"])
        coefficients: Tensor = weights * (vectors @ (inverse * vectors[row]))
        return coefficients


class MFAC(WindowOptimizer):
    """SGD with momentum on gradients preconditioned by ``(damping I + G G^T / m)^-1``.

    From Frantar, Kurtic and Alistarh, "M-FAC: Efficient matrix-free approximations of
    second-order information" (NeurIPS 2021), the dynamic algorithm: the columns of G are the last
    m = ``window`` minibatch gradients, counted as zero before there are m. By Woodbury's identity
    the newest gradient g = G e becomes ``m G (m damping I + G^T G)^-1 e``. The paper unrolls the
    identity into a recursion; the same m x m system is solved here by Cholesky's factorisation.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        momentum: float = 0.9,  # decay of the running average of the preconditioned gradients
        weight_decay: float = 3e-3,
        window: int = 512,
        damping: float = 1e-3,
    ) -> None:
        check_positive(damping=damping)
        average = {"momentum": momentum, "dampening": momentum, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **average, "window": window, "damping": damping})

    def coefficients(self, gram: Tensor, row: int) -> Tensor:
        """Combine the window by a Cholesky solve."""
        size = len(gram)
        identity = torch.eye(size, dtype=torch.float64, device=gram.device)
        system = gram.double() + size * self.param_groups[0]["damping"] * identity
        newest = size * identity[:, row : row + 1]
        return torch.cholesky_solve(newest, torch.linalg.cholesky(system)).squeeze(1)
