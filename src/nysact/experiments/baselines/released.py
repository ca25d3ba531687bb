"""NysAct as its authors released it: the method that this library repairs, for comparison.

It departs from the Nystrom approximation in four places:

1. ``X L = Y`` is solved in the place of ``X L^T = Y``, so that ``X X^T`` isn't the approximation.
2. Every update of the statistics draws a test matrix of its own. One running average is taken of
   the sketches by all of them, never starts anew, and is read as if the last had made all of it.
3. The core matrix is shifted by ``|lowest eigenvalue| + damping`` when the sketch is shifted by
   ``damping`` alone, and that shift is taken off all eigenvalues.
4. The inverse is a dense d x d matrix, out of a singular value decomposition with square factors.

Written anew from what the authors' code computes (Seung, Lee and Ko, "NysAct: A scalable
preconditioned gradient descent using Nystrom approximation", IEEE BigData 2024).
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import record_function

from nysact.experiments.baselines.rows import (
    MatrixLayer,
    from_matrix,
    input_rows,
    layer_params,
    matrix_layers,
    to_matrix,
)

SKETCHES = ("columns", "gaussian")


def draw_probes(sketch: str, dim: int, rank: int, generator: torch.Generator) -> Tensor:
    """Draw a test matrix.

    Args:
        sketch: ``"columns"`` of the identity (NysAct-S) or ``"gaussian"``, from N(0, 1/d)
            (NysAct-G).
        dim: Side d of the covariance.
        rank: Number of columns.
        generator: A generator on the CPU.

    Returns:
        ``(dim, rank)``, float64.
    """
    if sketch == "columns":
        chosen = torch.randperm(dim, generator=generator)[:rank]
        columns = torch.zeros(dim, rank, dtype=torch.float64)
        return columns.index_put_((chosen, torch.arange(rank)), columns.new_ones(()))
    gaussian = torch.randn(dim, rank, generator=generator, dtype=torch.float64)
    return gaussian / math.sqrt(dim)


def released_inverse(average: Tensor, probes: Tensor, damping: float) -> Tensor:
    """Build the dense inverse that gradients are multiplied with from the right.

    Args:
        average: The averaged sketch, bias-corrected, ``(d, r)``.
        probes: The last test matrix, ``(d, r)``.
        damping: Damping rho.

    Returns:
        ``(d, d)``.
    """
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


class ReleasedNysAct(Optimizer):
    """SGD with momentum on gradients multiplied by the released code's inverse.

    Only what the released code can do: linear layers and convolutions without groups whose
    padding is zeros; everything else gets plain SGD with momentum.

    Args:
        model: The model that is trained; its layers get forward hooks.
        lr: Learning rate.
        momentum: Momentum factor.
        weight_decay: Coefficient of the weight decay, added to the preconditioned gradient.
        damping: Damping rho.
        rank: Columns of the sketch.
        sketch: ``"columns"`` (NysAct-S) or ``"gaussian"`` (NysAct-G).
        stat_decay: Decay of the running average.
        cov_interval: Steps between statistics.
        inv_interval: Steps between inverses, a multiple of ``cov_interval``.
        seed: Seed of the test matrices; the global random stream is not touched.

    Raises:
        ValueError: If there is no such sketch, or the intervals don't fit.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        damping: float = 1.0,
        rank: int = 10,
        sketch: str = "columns",
        stat_decay: float = 0.95,
        cov_interval: int = 5,
        inv_interval: int = 50,
        seed: int = 0,
    ) -> None:
        if sketch not in SKETCHES:
            raise ValueError(f"sketch={sketch!r}: expected one of {', '.join(SKETCHES)}")
        if inv_interval % cov_interval:
            raise ValueError(
                f"inv_interval={inv_interval}: expected a multiple of cov_interval={cov_interval}"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "damping": damping,
            "rank": rank,
            "sketch": sketch,
            "stat_decay": stat_decay,
            "cov_interval": cov_interval,
            "inv_interval": inv_interval,
            "seed": seed,
            "step": 0,
        }
        super().__init__([p for p in model.parameters() if p.requires_grad], defaults)
        self._layers = matrix_layers(model)
        for index, module in enumerate(self._layers):
            module.register_forward_hook(partial(self._observe, index))

    @record_function("nysact.capture")
    @torch.no_grad()
    def _observe(
        self, index: int, module: MatrixLayer, args: tuple[Tensor, ...], output: Tensor
    ) -> None:
        """Sketch a batch's covariance by a test matrix of its own, and average."""
        group = self.param_groups[0]
        if not output.requires_grad or group["step"] % group["cov_interval"]:
            return
        rows = input_rows(module, args[0].detach()).flatten(0, 1)
        dim = rows.shape[1]
        # Every step and layer has a number of its own, so that a resumed training draws the same.
        number = group["seed"] + group["step"] * len(self._layers) + index
        generator = torch.Generator().manual_seed(number)
        probes = draw_probes(group["sketch"], dim, min(group["rank"], dim), generator).to(rows)
        state = self.state[module.weight]
        state["probes"] = probes
        average = state.setdefault("average", torch.zeros_like(probes))
        average.lerp_(rows.T @ (rows @ probes) / len(rows), 1 - group["stat_decay"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            The closure's loss, or ``None``.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        if group["step"] % group["inv_interval"] == 0:
            self._invert()
        gradients = self._preconditioned()
        for param, gradient in gradients.items():
            state = self.state[param]
            buffer = state.setdefault("momentum_buffer", torch.zeros_like(param))
            buffer.mul_(group["momentum"]).add_(gradient).add_(param, alpha=group["weight_decay"])
            param.add_(buffer, alpha=-group["lr"])
        group["step"] += 1
        return loss

    @record_function("nysact.refresh")
    def _invert(self) -> None:
        group = self.param_groups[0]
        correction = 1 - group["stat_decay"] ** (group["step"] // group["cov_interval"] + 1)
        for module in self._layers:
            state = self.state[module.weight]
            if "average" in state:
                average = state["average"] / correction
                state["inverse"] = released_inverse(average, state["probes"], group["damping"])

    @record_function("nysact.apply")
    def _preconditioned(self) -> dict[Tensor, Tensor]:
        """Give each parameter's gradient, preconditioned where its layer has an inverse."""
        params = self.param_groups[0]["params"]
        gradients = {p: p.grad for p in params if p.grad is not None}
        for module in self._layers:
            weight, bias = module.weight, module.bias
            inverse = self.state[weight].get("inverse")
            if inverse is None or not all(p in gradients for p in layer_params(module)):
                continue
            matrix = to_matrix(gradients[weight], None if bias is None else gradients[bias])
            parts = from_matrix(matrix @ inverse, module)
            gradients.update(zip(layer_params(module), parts, strict=True))
        return gradients
