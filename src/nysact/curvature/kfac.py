"""K-FAC's curvature: the covariances of inputs and of output gradients."""

import torch
from torch import Tensor

from nysact.curvature.curvature import Damping, Shape, Tensors
from nysact.curvature.linalg import covariance_eigenpairs, inverse_or_identity
from nysact.curvature.two_sided import SIDES, TwoSided
from nysact.layers.linear_map import LinearMap


class Kronecker(TwoSided):
    """The Kronecker product of the input covariance A and the output gradients' covariance B.

    A is a mean over rows. B is that of the gradients of each sample's own loss, summed over the
    sample's positions, so that the product is the Fisher matrix of the expand setting.
    """

    statistic = "covariance"
    degree = 2
    eigenpairs = staticmethod(covariance_eigenpairs)

    def statistic_size(self, size: int) -> tuple[int, ...]:
        return (size, size)

    def factor_sizes(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"basis": (size, size), "eigenvalues": (size,)}

    def of_inputs(self, linear_map: LinearMap, offset: int) -> Tensor:
        return linear_map.covariance()

    def of_outputs(self, rows: Tensor, samples: int, offset: int) -> Tensor:
        return rows.mT @ rows

    def factorise(self, statistic: Tensor) -> tuple[Tensors, Tensor]:
        basis, eigenvalues, succeeded = self.eigenpairs(statistic)
        return {"basis": basis, "eigenvalues": eigenvalues}, succeeded

    def work(self, shape: Shape) -> float:
        return float(shape.dim**3 + shape.out**3)

    def mean_eigenvalue(self, factors: Tensors, dim: int) -> Tensor:
        return self.side_mean(factors, "input") * self.side_mean(factors, "output")

    def side_mean(self, factors: Tensors, side: str) -> Tensor:
        """Compute the mean eigenvalue of one side, (layers, groups)."""
        return factors[f"{side}_eigenvalues"].mean(-1)

    def split_damping(self, factors: Tensors, damping: Damping) -> tuple[Tensor, Tensor]:
        """Give A pi sqrt(gamma) and B sqrt(gamma) / pi, pi^2 the ratio of mean eigenvalues."""
        # Factored Tikhonov damping, Martens and Grosse (2015), section 6.3.
        inputs, outputs = (self.side_mean(factors, side) for side in SIDES)
        both = (inputs > 0) & (outputs > 0)
        pi = (torch.where(both, inputs, 1) / torch.where(both, outputs, 1)).sqrt()
        root = damping**0.5
        return pi * root, root / pi

    def action(self, factors: Tensors, damping: Damping, ready: Tensor) -> Tensors:
        action: Tensors = {}
        for side, part in zip(SIDES, self.split_damping(factors, damping), strict=True):
            damped = factors[f"{side}_eigenvalues"] + part.unsqueeze(-1)
            action[side] = inverse_or_identity(factors[f"{side}_basis"], damped, ready)
        return action

    def multiply(self, gradient: Tensor, action: Tensors) -> Tensor:
        return action["output"] @ gradient @ action["input"]

    def inverse(self, factors: Tensors, damping: Damping, ready: Tensor, dim: int) -> Tensor:
        return self.action(factors, damping, ready)["input"].squeeze(0)

    def summary(self, factors: Tensors) -> Tensors:
        inputs, outputs = (factors[f"{side}_eigenvalues"] for side in SIDES)
        return {
            "eigenvalues": inputs,
            "trace": inputs.sum(-1),
            "output_eigenvalues": outputs,
            "output_trace": outputs.sum(-1),
        }
