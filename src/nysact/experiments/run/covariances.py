"""The covariance of each layer's inputs, and its low-rank approximations.

Both are read off the library's own optimizers: FOOF has the exact inverse of covariance plus
damping, NysAct that of its approximation, and inverting either gives the matrix. They observe a
copy of the model with learning rate 0, in evaluation mode, so that the training is not affected.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nysact import FOOF, NysAct
from nysact.experiments.data.loaders import Batch
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.losses import LossFunction
from nysact.experiments.randomness import seeded

SKETCHES: tuple[Literal["columns", "gaussian", "subspace"], ...]
SKETCHES = ("columns", "gaussian", "subspace")
# Samples that are looked at.
SAMPLES = 128
# Refreshes after which the subspace, which improves with each, has converged.
REFRESHES = 5
DAMPING = 1.0
# Nothing is trained, and each step refreshes from all samples.
WATCHING: dict[str, Any] = {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0, "damping": DAMPING}
WATCHING |= {"cov_interval": 1, "inv_interval": 1, "subsample": 1}


class Observer:
    """Looks at the layers of a model in training, on the first samples of a batch."""

    def __init__(self, build: Callable[[], nn.Module], loss: LossFunction, batch: Batch) -> None:
        inputs, targets = batch
        self.inputs, self.targets = inputs[:SAMPLES], targets[:SAMPLES]
        self.loss = loss
        with seeded(0):
            self.model = build().to(inputs.device).eval()

    def check(self, layers: Iterable[str]) -> None:
        """Make sure that the model has these layers."""
        optimizer = FOOF(self.model)
        optimizer.remove_hooks()
        for name in layers:
            if name not in optimizer.layers:
                known = unknown(name, optimizer.layers)
                raise ExperimentError(f"record.covariances: there is no layer {known}")

    def norms(self, model: nn.Module) -> dict[str, float]:
        """Measure the Frobenius norm of each layer's covariance, the bias's input included."""
        optimizer = FOOF(self.model, **WATCHING)
        self._look(model, optimizer, 1)
        return {
            name: float(torch.linalg.matrix_norm(matrix_of(optimizer.inverse(name))).norm())
            for name in optimizer.layers
        }

    def approximations(
        self, model: nn.Module, layers: Iterable[str], rank: int
    ) -> dict[str, Tensor]:
        """Give ``"layer/covariance"`` and each ``"layer/sketch"``: (d, d), or (groups, d, d)."""
        exact = FOOF(self.model, **WATCHING)
        self._look(model, exact, 1)
        watching: dict[str, FOOF | NysAct] = {"covariance": exact}
        for sketch in SKETCHES:
            optimizer = NysAct(self.model, rank=rank, sketch=sketch, tail=False, **WATCHING)
            self._look(model, optimizer, REFRESHES)
            watching[sketch] = optimizer
        return {
            f"{layer}/{name}": matrix_of(optimizer.inverse(layer)).cpu()
            for layer in layers
            for name, optimizer in watching.items()
        }

    def _look(self, model: nn.Module, optimizer: FOOF | NysAct, steps: int) -> None:
        """Show an optimizer the samples with the weights of the model in training."""
        self.model.load_state_dict(model.state_dict())
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(self.model(self.inputs), self.targets).backward()
            optimizer.step()
        optimizer.remove_hooks()


def matrix_of(inverse: Tensor) -> Tensor:
    """Give the matrix whose sum with the damping was inverted, in float64."""
    identity = torch.eye(inverse.shape[-1], dtype=torch.float64, device=inverse.device)
    matrix: Tensor = torch.linalg.inv(inverse.double()) - DAMPING * identity
    return matrix
