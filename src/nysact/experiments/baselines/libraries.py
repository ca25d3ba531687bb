"""AdaHessian of the package pytorch_optimizer, with the curvature estimate of its authors."""

from typing import Any

import pytorch_optimizer
import torch
from torch import Tensor

from nysact.experiments.baselines.optimizer import Needs
from nysact.experiments.baselines.sketchysgd import hessian_product


class AdaHessian(pytorch_optimizer.AdaHessian):
    """AdaHessian with spatial averaging and random signs from its own stream.

    The package estimates the Hessian's diagonal from the global random stream and without the
    average over each convolution kernel that Yao et al. (AAAI 2021) take; both are done here, and
    the update is the package's.
    """

    needs = Needs.GRAPH

    def __init__(self, params: Any, seed: int = 0, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.seed = seed

    def step(self, closure: Any = None, hessian: list[Tensor] | None = None) -> Any:
        """Do one step, with this class's estimate of the diagonal unless one is given."""
        loss = None if closure is None else closure()
        super().step(hessian=hessian or self._diagonal())
        return loss

    def _diagonal(self) -> list[Tensor]:
        """Estimate the Hessian's diagonal by Hutchinson's method."""
        params = [p for group in self.param_groups for p in group["params"]]
        known = [p for p in params if p.grad is not None]
        sizes = [p.numel() for p in known]
        generator = torch.Generator().manual_seed(self.seed + self.param_groups[0].get("step", 0))
        signs = torch.randint(0, 2, (sum(sizes),), generator=generator).double() * 2 - 1
        signs = signs.to(known[0].device)
        products = signs * hessian_product(known, signs.split(sizes))
        diagonal = {p: torch.zeros_like(p) for p in params}
        for param, part in zip(known, products.split(sizes), strict=True):
            diagonal[param] = spatial_average(part.to(param).view(param.shape))
        return list(diagonal.values())


def spatial_average(diagonal: Tensor) -> Tensor:
    """Average absolute values over the kernel of a convolution's weight."""
    # The absolute value comes first, as in the authors' code: signs would cancel within a kernel.
    size = diagonal.abs()
    if size.dim() < 3:
        return size
    return size.mean(tuple(range(2, size.dim())), keepdim=True).expand_as(size)
