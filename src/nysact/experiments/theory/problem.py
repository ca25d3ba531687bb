"""Smooth problems of one linear layer, whose constants are known."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# The largest |d^2/dz^2 (s(z) - y)^2 / 2| of the logistic function s and y in {0, 1}, which is
# s^2 (1 - s) |2 - 3 s| at the root s = (15 - sqrt(33)) / 24 of its derivative.
_ROOT = (15 - 33**0.5) / 24
SIGMOID_CURVATURE = _ROOT**2 * (1 - _ROOT) * (2 - 3 * _ROOT)


@dataclass(frozen=True)
class Problem:
    """The mean over rows x of a loss h of the outputs W x, each of which it is smooth in.

    With A the covariance of the rows, the Hessian of the loss in W lies between
    -curvature (I x A) and curvature (I x A): it is L-smooth with L = curvature * lambda_max(A).

    Args:
        name: What it is called.
        inputs: The rows, (n, d), float64.
        targets: (n, outputs), float64.
        losses: Maps outputs and targets (n, outputs) to the loss of each row (n,).
        slopes: Maps them to its derivative in the outputs (n, outputs).
        curvature: A bound on its second derivative in each output.
        minimum: The least value of the mean loss, or a bound from below.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    losses: Callable[[Tensor, Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], Tensor]
    curvature: float
    minimum: float

    @property
    def covariance(self) -> Tensor:
        """The covariance A of the rows, (d, d)."""
        return self.inputs.mT @ self.inputs / len(self.inputs)

    @property
    def smoothness(self) -> float:
        """The Lipschitz constant L of the gradient."""
        return self.curvature * float(torch.linalg.eigvalsh(self.covariance)[-1])

    def loss(self, weight: Tensor) -> float:
        """Evaluate the mean loss at a weight (outputs, d)."""
        return float(self.losses(self.inputs @ weight.mT, self.targets).mean())

    def gradient(self, weight: Tensor) -> Tensor:
        """Evaluate the gradient of the mean loss, (outputs, d)."""
        slopes = self.slopes(self.inputs @ weight.mT, self.targets)
        return slopes.mT @ self.inputs / len(self.inputs)

    def variance(self, weight: Tensor, batch_size: int) -> float:
        """Evaluate E|g - grad|^2 of the gradient g of rows drawn with replacement.

        Args:
            weight: Where.
            batch_size: How many rows are drawn.

        Returns:
            The variance.
        """
        slopes = self.slopes(self.inputs @ weight.mT, self.targets)
        squares = slopes.square().sum(1) * self.inputs.square().sum(1)
        mean = slopes.mT @ self.inputs / len(self.inputs)
        return float(squares.mean() - mean.square().sum()) / batch_size


def least_squares(inputs: Tensor, targets: Tensor) -> Problem:
    """Make the problem |W x - y|^2 / 2, whose Hessian is I x A exactly.

    Args:
        inputs: The rows, (n, d).
        targets: (n, outputs).

    Returns:
        The problem, with its exact minimum.
    """
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution
    minimum = float((inputs @ solution - targets).square().sum(1).mean() / 2)
    return Problem(
        "least squares",
        inputs,
        targets,
        lambda outputs, y: (outputs - y).square().sum(1) / 2,
        lambda outputs, y: outputs - y,
        curvature=1.0,
        minimum=minimum,
    )


def sigmoid_squares(inputs: Tensor, targets: Tensor) -> Problem:
    """Make the problem |s(W x) - y|^2 / 2 with the logistic function s: smooth, not convex.

    Args:
        inputs: The rows, (n, d).
        targets: Zeros and ones, (n, outputs).

    Returns:
        The problem, with 0 as a bound of its minimum from below.
    """

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
    """Load scikit-learn's digits as rows and one-hot targets.

    Returns:
        Rows (1797, 64), scaled so that the largest eigenvalue of their covariance is 1, and
        targets (1797, 10), both float64.
    """
    # Imported here: it takes more than a second.
    from sklearn import datasets

    data = datasets.load_digits()
    rows = torch.from_numpy(data.data).double()
    rows = rows / torch.linalg.matrix_norm(rows, 2) * len(rows) ** 0.5
    labels = torch.from_numpy(data.target).long()
    return rows, torch.nn.functional.one_hot(labels).double()
