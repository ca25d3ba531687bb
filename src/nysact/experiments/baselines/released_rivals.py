"""FOOF, K-FAC and Eva as the NysAct authors released them, which gave the rows of their paper.

The output factor is a mean over rows of gradients of the mean loss. So it is smaller than that of
per-sample gradients, summed over positions, by the square of the batch times the positions: the
damping swamps it, and the direction is nearly the gradient's.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.released import ReleasedOptimizer
from nysact.experiments.baselines.rows import MatrixLayer, layer_params, output_rows

SMALLEST = 1e-10  # eigenvalues below it count as zero
EVA_SAMPLES = 16  # of a batch, from which Eva takes its means


class ReleasedFOOF(ReleasedOptimizer):
    """FOOF whose average starts at the identity, and which starts as plain SGD.

    The correction for bias counts an update for each layer instead of each step.
    """

    def observe(self, index: int, module: MatrixLayer, rows: Tensor, output: Tensor) -> None:
        """Average the covariance."""
        decay = self.param_groups[0]["stat_decay"]
        average_covariance(self.state[module.weight], "average", rows, decay)

    def invert(self, state: dict[str, Any]) -> None:
        """Invert the damped average; the first inverse is the identity."""
        group, average = self.param_groups[0], state["average"]
        identity = torch.eye(len(average)).to(average)
        updates = (group["step"] // group["cov_interval"] + 1) * len(self._layers)
        corrected = average / (1 - group["stat_decay"] ** updates)
        damped = corrected + group["damping"] * identity
        state["inverse"] = torch.linalg.inv(damped) if "inverse" in state else identity


class TwoSided(ReleasedOptimizer):
    """Observes both sides of a layer, and scales directions by their product with the gradient."""

    STATISTICS = ("average", "output_average")
    CLIPPING_LR: float | None = None  # ``None`` for the scheduled learning rate

    @abstractmethod
    def average(self, state: dict[str, Any], name: str, rows: Tensor, decay: float) -> None:
        """Average a statistic of rows (n, positions, d)."""

    def observe(self, index: int, module: MatrixLayer, rows: Tensor, output: Tensor) -> None:
        """Average a statistic of the inputs and one of the outputs' gradients."""
        decay, state = self.param_groups[0]["stat_decay"], self.state[module.weight]
        self.average(state, "average", rows, decay)

        def keep(gradient: Tensor) -> None:
            self.average(state, "output_average", output_rows(module, gradient), decay)

        output.register_hook(keep)

    def _preconditioned(self) -> dict[Tensor, Tensor]:
        group, directions = self.param_groups[0], super()._preconditioned()
        params = [p for module in self._layers for p in layer_params(module) if p in directions]
        pairs = [(directions[p], p.grad) for p in params if p.grad is not None]
        product = sum(float((direction * gradient).sum()) for direction, gradient in pairs)
        product *= (self.CLIPPING_LR or group["lr"]) ** 2
        scale = min(1.0, (group["kl_clip"] / product) ** 0.5) if product > 0 else 1.0
        return directions | {p: scale * directions[p] for p in params}


class ReleasedKFAC(TwoSided):
    """K-FAC whose averages start at the identity and whose weight decay starts late."""

    DECAY_STARTS = 20

    def average(self, state: dict[str, Any], name: str, rows: Tensor, decay: float) -> None:
        """Average the covariance."""
        average_covariance(state, name, rows, decay)

    def invert(self, state: dict[str, Any]) -> None:
        """Decompose both averages."""
        for name in self.STATISTICS:
            values, state[f"{name}_vectors"] = torch.linalg.eigh(state[name])
            state[f"{name}_values"] = values * (values > SMALLEST)

    def direction(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Divide by the damped products of eigenvalues, in the basis of the eigenvectors."""
        inputs, outputs = state["average_vectors"], state["output_average_vectors"]
        values = torch.outer(state["output_average_values"], state["average_values"])
        rotated = outputs.T @ gradient @ inputs / (values + self.param_groups[0]["damping"])
        direction: Tensor = outputs @ rotated @ inputs.T
        return direction


class ReleasedEva(TwoSided):
    """Eva by means over the first samples of a batch, which act at once."""

    CLIPPING_LR = 0.1

    def average(self, state: dict[str, Any], name: str, rows: Tensor, decay: float) -> None:
        """Average the mean, starting from the first one."""
        mean = rows[:EVA_SAMPLES].flatten(0, 1).mean(0)
        state[name] = state[name].lerp(mean, 1 - decay) if name in state else mean

    def invert(self, state: dict[str, Any]) -> None:
        """Do nothing, since the averages themselves act."""

    def direction(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Remove the part along both means, and divide by the damping."""
        a, g, damping = state["average"], state["output_average"], self.param_groups[0]["damping"]
        share = (g @ gradient @ a) / ((a @ a) * (g @ g) + damping)
        direction: Tensor = (gradient - share * torch.outer(g, a)) / damping
        return direction


def average_covariance(state: dict[str, Any], name: str, rows: Tensor, decay: float) -> None:
    """Average the covariance of rows (n, positions, d), starting from the identity."""
    rows = rows.flatten(0, 1)
    if name not in state:
        state[name] = torch.eye(rows.shape[1]).to(rows)
    state[name].lerp_(rows.T @ rows / len(rows), 1 - decay)
