"""GGT: the inverse root of the second moment of a window of gradients."""

from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.window import WindowOptimizer


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
        if eps <= 0:
            raise ValueError(f"eps={eps}: expected a positive number")
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
