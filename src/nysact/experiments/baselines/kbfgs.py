"""K-BFGS(L): quasi-Newton inverses of each layer's two Kronecker factors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nysact.experiments.baselines.optimizer import (
    Needs,
    OwnOptimizer,
    buffer_of,
    check_positive,
    trainable,
)
from nysact.experiments.baselines.rows import (
    MatrixLayer,
    from_matrix,
    input_rows,
    layer_params,
    matrix_layers,
    output_rows,
    to_matrix,
)

# Powell's damping keeps s^T y at this share of y^T H y, or more.
POWELL = 0.2
# A pair is left out unless s^T y is more than this times s^T s and the gradient's norm.
CAUTION = 1e-4


class Pairs:
    """The L-BFGS inverse of a list of pairs that starts from the identity.

    In the compact form of Byrd, Nocedal and Schnabel (1994): the same matrix as BFGS updates one
    after the other.
    """

    def __init__(self, s: Tensor, y: Tensor) -> None:
        self.s, self.y = s.double(), y.double()  # steps and changes, (pairs, n), the oldest first

    def inverse_product(self, other: Tensor) -> Tensor:
        """Multiply a vector or matrix by the inverse from the left, in its own dtype."""
        if len(self.s) == 0:
            return other
        wide = other.double().reshape(len(other), -1)
        products = self.s @ self.y.T
        triangle = products.triu()
        u = torch.linalg.solve_triangular(triangle, self.s @ wide, upper=True)
        core = products.diagonal()[:, None] * u + self.y @ (self.y.T @ u - wide)
        w = torch.linalg.solve_triangular(triangle.T, core, upper=False)
        product: Tensor = wide + self.s.T @ w - self.y.T @ u
        return product.view(other.shape).to(other)

    def append(self, s: Tensor, y: Tensor, memory: int) -> "Pairs":
        """Add a pair, and drop the oldest beyond ``memory``."""
        return Pairs(torch.cat([self.s, s[None]])[-memory:], torch.cat([self.y, y[None]])[-memory:])


def bfgs_update(inverse: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Update a symmetric inverse so that it maps y to s, where ``s^T y > 0``."""
    curvature = s @ y
    product = inverse @ y
    scale = (1 + y @ product / curvature) / curvature
    cross = torch.outer(s, product) / curvature
    return inverse + scale * torch.outer(s, s) - cross - cross.T


def double_damping(s: Tensor, y: Tensor, product: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Damp a pair so that BFGS keeps its inverse, whose product with y is given, bounded."""
    quadratic, curvature = y @ product, s @ y
    if curvature < POWELL * quadratic:
        share = (1 - POWELL) * quadratic / (quadratic - curvature)
        s = share * s + (1 - share) * product
    length, curvature = s @ s, s @ y
    if curvature < damping * length:
        share = (1 - damping) * length / (length - curvature)
        y = share * y + (1 - share) * s
    return s, y


def is_safe(s: Tensor, y: Tensor, gradient: Tensor) -> bool:
    """Whether a pair has enough curvature to be used."""
    curvature = float(s @ y)
    return curvature > CAUTION * float(s @ s) * float(gradient.norm())


@dataclass
class Observation:
    """What one evaluation of the model shows of a layer."""

    covariance: Tensor  # of the input rows: mean over samples, sum over positions, (d, d)
    row: Tensor  # mean of the input rows, (d)
    output: Tensor  # mean of the outputs, (out)
    gradient: Tensor | None = None  # of one sample's loss in its outputs, mean over both, (out)


class KBFGS(OwnOptimizer):
    """Momentum steps along ``H_G M H_A``, with M the averaged gradient of a layer's weight.

    K-BFGS(L) from Goldfarb, Ren and Bahamou, "Practical quasi-Newton methods for training deep
    neural networks" (NeurIPS 2020). ``H_A`` approximates the inverse of the damped covariance of
    the layer's inputs by BFGS with ``s = H_A a``, ``y = (A + damping_A I) s``, a the mean input.
    ``H_G`` is the L-BFGS inverse of the loss's curvature in the outputs: its pairs are the changes
    of mean output and mean output gradient over the step, by a second evaluation of the batch;
    averaged over time and damped twice (Powell's damping of s, Levenberg-Marquardt's of y). Both
    dampings are ``sqrt(damping)``. The covariance starts with the first batch, that of the
    authors' code with a pass over all data.

    A convolution's positions count as in KFC (Grosse and Martens, ICML 2016): the covariance sums
    over them, outputs and their gradients are averaged. The loss is a mean over samples. Layers
    that :func:`matrix_layers` leaves out get plain momentum steps.
    """

    needs = Needs.CLOSURE

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3.0,
        *,
        momentum: float = 0.9,  # decay of the running average of the gradient
        weight_decay: float = 5e-4,
        damping: float = 0.3,
        stat_decay: float = 0.9,  # of covariance and pairs
        memory: int = 100,  # pairs
    ) -> None:
        check_positive(damping=damping, memory=memory)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        curvature = {"damping": damping, "stat_decay": stat_decay, "memory": memory}
        super().__init__(trainable(model), {**defaults, **curvature})
        self._layers = matrix_layers(model)
        self._observed: dict[int, Observation] = {}
        self._observing = False
        for index, module in enumerate(self._layers):
            module.register_forward_hook(partial(self._observe, index))

    @torch.no_grad()
    def _observe(
        self, index: int, module: MatrixLayer, args: tuple[Tensor, ...], output: Tensor
    ) -> None:
        if not (self._observing and output.requires_grad):
            return
        rows = input_rows(module, args[0].detach())
        flat = rows.flatten(0, 1)
        mean_output = output_rows(module, output).mean((0, 1))
        observation = Observation(flat.T @ flat / len(rows), flat.mean(0), mean_output)
        self._observed[index] = observation

        def keep(gradient: Tensor) -> None:
            # The loss is a mean over samples, so the sum over them is one sample's mean share.
            observation.gradient = output_rows(module, gradient).sum(0).mean(0)

        output.register_hook(keep)

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[Any, dict[int, Observation]]:
        """Run the closure, and collect what it shows of each layer that has a gradient."""
        self._observed, self._observing = {}, True
        try:
            with torch.enable_grad():
                loss = closure()
        finally:
            self._observing = False
        return loss, {i: seen for i, seen in self._observed.items() if seen.gradient is not None}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step; the closure is called twice, and its first loss is returned."""
        if closure is None:
            raise RuntimeError("K-BFGS evaluates each batch twice: pass a closure to step")
        loss, before = self._evaluate(closure)
        decay = self.param_groups[0]["stat_decay"]
        for index, seen in before.items():
            state = self.state[self._layers[index].weight]
            if "covariance" in state:
                state["covariance"].lerp_(seen.covariance, 1 - decay)
            else:
                state["covariance"] = seen.covariance
                state["input_inverse"] = torch.linalg.inv(self._damped(seen.covariance))
        self.update()
        _, after = self._evaluate(closure)
        for index in before.keys() & after.keys():
            self._update_factors(self._layers[index], before[index], after[index])
        return loss

    def update(self) -> None:
        """Move along the averaged gradients, preconditioned layer by layer."""
        group, directions = self.param_groups[0], {}
        for _, param in self.with_gradient():
            assert param.grad is not None
            gradient = param.grad.add(param, alpha=group["weight_decay"])
            average = buffer_of(self.state[param], param, "average")
            directions[param] = average.lerp_(gradient, 1 - group["momentum"])
        for module in self._layers:
            params, state = layer_params(module), self.state[module.weight]
            if "input_inverse" in state and all(p in directions for p in params):
                matrix = to_matrix(*(directions[p] for p in params)) @ state["input_inverse"]
                matrix = self._pairs(module).inverse_product(matrix)
                directions.update(zip(params, from_matrix(matrix, module), strict=True))
        for param, direction in directions.items():
            param.add_(direction, alpha=-group["lr"])

    def _damped(self, covariance: Tensor) -> Tensor:
        root = self.param_groups[0]["damping"] ** 0.5
        damped: Tensor = covariance + root * torch.eye(len(covariance)).to(covariance)
        return damped

    def _update_factors(self, module: MatrixLayer, before: Observation, after: Observation) -> None:
        assert before.gradient is not None
        assert after.gradient is not None
        group, state = self.param_groups[0], self.state[module.weight]
        changes = {"s": after.output - before.output, "y": after.gradient - before.gradient}
        for name, change in changes.items():
            buffer_of(state, change, f"average_{name}").lerp_(change, 1 - group["stat_decay"])
        pairs = self._pairs(module)
        s, y = state["average_s"].double(), state["average_y"].double()
        s, y = double_damping(s, y, pairs.inverse_product(y), group["damping"] ** 0.5)
        if is_safe(s, y, before.gradient):
            pairs = pairs.append(s, y, group["memory"])
            state["s"], state["y"] = pairs.s.to(module.weight), pairs.y.to(module.weight)
        inverse = state["input_inverse"]
        s = inverse @ before.row
        y = self._damped(state["covariance"]) @ s
        if is_safe(s, y, before.row):
            state["input_inverse"] = bfgs_update(inverse, s, y)

    def _pairs(self, module: MatrixLayer) -> Pairs:
        state, empty = self.state[module.weight], module.weight.new_zeros(0, len(module.weight))
        return Pairs(state.get("s", empty), state.get("y", empty))
