"""NysAct, FOOF, K-FAC and Eva as the NysAct authors released them, for comparison."""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from nysact.experiments.baselines.optimizer import OwnOptimizer, buffer_of, trainable
from nysact.experiments.baselines.rows import (
    MatrixLayer,
    from_matrix,
    input_rows,
    layer_params,
    matrix_layers,
    output_rows,
    to_matrix,
)

SKETCHES = ("columns", "gaussian")


class ReleasedOptimizer(OwnOptimizer):
    """SGD with momentum on gradients that a subclass preconditions layer by layer.

    Only what the released code can do: linear layers and convolutions without groups whose
    padding is zeros; everything else gets plain SGD with momentum. Statistics are taken from
    forwards with gradients every ``cov_interval`` steps, and ``inv_interval`` is a multiple of it.
    """

    DEFAULTS: Mapping[str, Any] = {
        **{"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "damping": 1.0, "stat_decay": 0.95},
        **{"cov_interval": 5, "inv_interval": 50},
    }
    STATISTICS: Collection[str] = {"average"}  # what an inversion reads in a layer's state
    DECAY_STARTS = 0  # statistics before the weight decay acts

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        settings = {**self.DEFAULTS, **settings}
        inv_interval, cov_interval = settings["inv_interval"], settings["cov_interval"]
        if inv_interval % cov_interval:
            raise ValueError(
                f"inv_interval={inv_interval}: expected a multiple of cov_interval={cov_interval}"
            )
        super().__init__(trainable(model), settings)
        self._layers = matrix_layers(model)
        for index, module in enumerate(self._layers):
            module.register_forward_hook(partial(self._observe, index))

    @record_function("nysact.capture")
    @torch.no_grad()
    def _observe(
        self, index: int, module: MatrixLayer, args: tuple[Tensor, ...], output: Tensor
    ) -> None:
        group = self.param_groups[0]
        if output.requires_grad and group["step"] % group["cov_interval"] == 0:
            self.observe(index, module, input_rows(module, args[0].detach()), output)

    @abstractmethod
    def observe(self, index: int, module: MatrixLayer, rows: Tensor, output: Tensor) -> None:
        """Take statistics of a layer, given its input rows (n, positions, d)."""

    @abstractmethod
    def invert(self, state: dict[str, Any]) -> None:
        """Refresh what :meth:`direction` reads in the state of a layer that has statistics."""

    def direction(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Precondition a layer's gradient (out, d)."""
        product: Tensor = gradient @ state["inverse"]
        return product

    def update(self) -> None:
        """Precondition the gradients, and take a momentum step."""
        group = self.param_groups[0]
        if group["step"] % group["inv_interval"] == 0:
            self._invert()
        decays = group["step"] >= self.DECAY_STARTS * group["cov_interval"]
        weight_decay = group["weight_decay"] if decays else 0.0
        for param, gradient in self._preconditioned().items():
            buffer = buffer_of(self.state[param], param)
            buffer.mul_(group["momentum"]).add_(gradient).add_(param, alpha=weight_decay)
            param.add_(buffer, alpha=-group["lr"])

    @record_function("nysact.refresh")
    def _invert(self) -> None:
        for state in (self.state[module.weight] for module in self._layers):
            if all(name in state for name in self.STATISTICS):
                self.invert(state)
                state["inverted"] = True

    @record_function("nysact.apply")
    def _preconditioned(self) -> dict[Tensor, Tensor]:
        """Give each parameter's gradient, preconditioned where its layer was inverted."""
        gradients = {p: p.grad for _, p in self.with_gradient() if p.grad is not None}
        for module in self._layers:
            params, state = layer_params(module), self.state[module.weight]
            if "inverted" in state and all(p in gradients for p in params):
                matrix = self.direction(to_matrix(*(gradients[p] for p in params)), state)
                gradients.update(zip(params, from_matrix(matrix, module), strict=True))
        return gradients


class ReleasedNysAct(ReleasedOptimizer):
    """SGD with momentum on gradients multiplied by the released code's inverse.

    A layer whose d is at most the rank has its covariance averaged and inverted exactly. ``seed``
    is that of the test matrices; the global random stream is not touched.
    """

    DEFAULTS: Mapping[str, Any] = {**ReleasedOptimizer.DEFAULTS, "rank": 10}

    def __init__(
        self, model: nn.Module, *, sketch: str = "columns", seed: int = 0, **settings: Any
    ) -> None:
        if sketch not in SKETCHES:
            raise ValueError(f"sketch={sketch!r}: expected one of {', '.join(SKETCHES)}")
        super().__init__(model, **settings, sketch=sketch, seed=seed)

    def observe(self, index: int, module: MatrixLayer, rows: Tensor, output: Tensor) -> None:
        """Sketch a batch's covariance by a test matrix of its own, and average."""
        group, state, rows = self.param_groups[0], self.state[module.weight], rows.flatten(0, 1)
        dim = rows.shape[1]
        sketched = rows
        if dim > group["rank"]:
            # Every step and layer has its own number, so that a resumed run draws the same.
            number = group["seed"] + group["step"] * len(self._layers) + index
            generator = torch.Generator().manual_seed(number)
            state["probes"] = draw_probes(group["sketch"], dim, group["rank"], generator).to(rows)
            sketched = rows @ state["probes"]
        sketch = rows.T @ sketched / len(rows)
        buffer_of(state, sketch, "average").lerp_(sketch, 1 - group["stat_decay"])

    def invert(self, state: dict[str, Any]) -> None:
        """Build the dense inverse."""
        group = self.param_groups[0]
        updates = group["step"] // group["cov_interval"] + 1
        average = state["average"] / (1 - group["stat_decay"] ** updates)
        if "probes" in state:
            state["inverse"] = released_inverse(average, state["probes"], group["damping"])
        else:
            damped = average + group["damping"] * torch.eye(len(average)).to(average)
            state["inverse"] = torch.linalg.inv(damped)


def draw_probes(sketch: str, dim: int, rank: int, generator: torch.Generator) -> Tensor:
    """Draw a test matrix (dim, rank): columns of the identity, or Gaussian from N(0, 1/dim)."""
    if sketch == "columns":
        chosen = torch.randperm(dim, generator=generator)[:rank]
        columns = torch.zeros(dim, rank, dtype=torch.float64)
        return columns.index_put_((chosen, torch.arange(rank)), columns.new_ones(()))
    gaussian = torch.randn(dim, rank, generator=generator, dtype=torch.float64)
    return gaussian / math.sqrt(dim)


def released_inverse(average: Tensor, probes: Tensor, damping: float) -> Tensor:
    """Build the dense inverse (d, d) from the bias-corrected average and the last probes (d, r)."""
    sketch = average + damping * probes
    # Not symmetric, since the average is of several test matrices; eigh reads one triangle.
    eigenvalues, vectors = torch.linalg.eigh(probes.T @ sketch)
    shift = eigenvalues.min().abs() + damping
    factor = torch.linalg.cholesky((vectors * (eigenvalues + shift)) @ vectors.T)
    root = torch.linalg.solve_triangular(factor, sketch, upper=False, left=False)
    square, singular_values, _ = torch.linalg.svd(root)
    basis = square[:, : len(singular_values)]
    kept = (singular_values.square() - shift).clamp(min=0)
    rest = torch.eye(len(basis)).to(basis) - basis @ basis.T
    inverse: Tensor = (basis / (kept + damping)) @ basis.T + rest / damping
    return inverse


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
