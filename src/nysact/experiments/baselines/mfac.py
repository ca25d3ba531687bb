"""M-FAC: the inverse of the empirical Fisher matrix of a window of gradients."""

from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.window import WindowOptimizer


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
        if damping <= 0:
            raise ValueError(f"damping={damping}: expected a positive number")
        average = {"momentum": momentum, "dampening": momentum, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **average, "window": window, "damping": damping})

    def coefficients(self, gram: Tensor, row: int) -> Tensor:
        """Combine the window by a Cholesky solve."""
        size = len(gram)
        identity = torch.eye(size, dtype=torch.float64, device=gram.device)
        system = gram.double() + size * self.param_groups[0]["damping"] * identity
        newest = size * identity[:, row : row + 1]
        return torch.cholesky_solve(newest, torch.linalg.cholesky(system)).squeeze(1)
