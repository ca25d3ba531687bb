"""Smooth problems of one linear layer, whose constants are known."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The largest |d^2/dz^2 (s(z) - y)^2 / 2| of the logistic function s and y in {0, 1}, which is
# s^2 (1 - s) |2 - 3 s| at the root s = (15 - sqrt(33)) / 24 of its derivative.
_ROOT = (15 - 33**0.5) / 24
SIGMOID_CURVATURE = _ROOT**2 * (1 - _ROOT) * (2 - 3 * _ROOT)


@dataclass(frozen=True)
class Problem:
    """The mean over rows x of a smooth loss of the outputs W x.

    With A the covariance of the rows, the Hessian of the loss in W lies between
    -curvature (I x A) and curvature (I x A): it is L-smooth with L = curvature * lambda_max(A).
    """

    name: str
    inputs: Tensor  # (n, d), float64
    targets: Tensor  # (n, outputs), float64
    losses: Callable[[Tensor, Tensor], Tensor]  # outputs and targets to the loss of each row (n,)
    slopes: Callable[[Tensor, Tensor], Tensor]  # and to its derivative in the outputs
    curvature: float  # a bound on its second derivative in each output
    minimum: float  # of the mean loss, or a lower bound

    @property
    def covariance(self) -> Tensor:
        """The covariance A of the rows, (d, d)."""
        return self.inputs.mT @ self.inputs / len(self.inputs)

    @property
    def smoothness(self) -> float:
        """The Lipschitz constant L of the gradient."""
        return self.curvature * float(torch.linalg.eigvalsh(self.covariance)[-1])

    @property
    def gap(self) -> float:
        """The loss of zero weights above the minimum."""
        zero = self.inputs.new_zeros(self.targets.shape[1], self.inputs.shape[1])
        return self.loss(zero) - self.minimum

    def loss(self, weight: Tensor) -> float:
        """Evaluate the mean loss at a weight (outputs, d)."""
        return float(self.losses(self.inputs @ weight.mT, self.targets).mean())

    def gradient(self, weight: Tensor) -> Tensor:
        """Evaluate the gradient of the mean loss, (outputs, d)."""
        slopes = self.slopes(self.inputs @ weight.mT, self.targets)
        return slopes.mT @ self.inputs / len(self.inputs)

    def variance(self, weight: Tensor, batch_size: int) -> float:
        """Evaluate E|g - grad|^2 of the gradient g of rows drawn with replacement."""
        slopes = self.slopes(self.inputs @ weight.mT, self.targets)
        squares = slopes.square().sum(1) * self.inputs.square().sum(1)
        return float(squares.mean() - self.gradient(weight).square().sum()) / batch_size


def least_squares(inputs: Tensor, targets: Tensor) -> Problem:
    """Make the problem |W x - y|^2 / 2, whose Hessian is I x A exactly."""
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution
    return Problem(
        "least squares",
        inputs,
        targets,
        lambda outputs, y: (outputs - y).square().sum(1) / 2,
        lambda outputs, y: outputs - y,
        curvature=1.0,
        minimum=float((inputs @ solution - targets).square().sum(1).mean() / 2),
    )


def sigmoid_squares(inputs: Tensor, targets: Tensor) -> Problem:
    """Make the problem |s(W x) - y|^2 / 2 with the logistic function s: smooth, not convex."""

    def slopes(outputs: Tensor, y: Tensor) -> Tensor:
        s = outputs.sigmoid()
        return (s - y) * s * (1 - s)

    return Problem(
        "squared error of a sigmoid",
        inputs,
        targets,
        lambda outputs, y: (outputs.sigmoid() - y).square().sum(1) / 2,
        slopes,
        curvature=SIGMOID_CURVATURE,
        minimum=0.0,
    )


def digits() -> tuple[Tensor, Tensor]:
    """Load scikit-learn's digits as rows (1797, 64) and one-hot targets (1797, 10), float64.

    The rows are scaled so that the largest eigenvalue of their covariance is 1.
    """
    from sklearn import datasets  # takes more than a second to import

    data = datasets.load_digits()
    rows = torch.from_numpy(data.data).double()
    rows = rows / torch.linalg.matrix_norm(rows, 2) * len(rows) ** 0.5
    return rows, F.one_hot(torch.from_numpy(data.target).long()).double()
