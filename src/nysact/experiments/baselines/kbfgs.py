"""K-BFGS(L): quasi-Newton inverses of each layer's two Kronecker factors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nysact.experiments.baselines.optimizer import Needs, OwnOptimizer, buffer_of, trainable
from nysact.experiments.baselines.quasi_newton import Pairs, bfgs_update, double_damping, is_safe
from nysact.experiments.baselines.rows import (
    MatrixLayer,
    from_matrix,
    input_rows,
    layer_params,
    matrix_layers,
    output_rows,
    to_matrix,
)


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
    the layer's inputs by BFGS with the pair ``s = H_A a``, ``y = (A + damping_A I) s``, a the mean
    input. ``H_G`` is the L-BFGS inverse of the loss's curvature in the layer's outputs: its pairs
    are the changes of mean output and mean output gradient over the step, which a second
    evaluation on the same batch gives; averaged over time and damped twice (Powell's damping of s,
    then a Levenberg-Marquardt damping of y). Both dampings are ``sqrt(damping)``. The covariance
    starts with the first batch; the authors' code starts it with a pass over all data.

    A convolution's positions count as in KFC (Grosse and Martens, ICML 2016): the covariance sums
    over them, outputs and their gradients are averaged over them. The step needs a closure, and
    a loss that is a mean over samples. Layers that are neither linear nor convolutions without
    groups and with padding by zeros get plain momentum steps.
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
        if damping <= 0 or memory < 1:
            raise ValueError(f"damping={damping}, memory={memory}: expected positive numbers")
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
        for index, seen in before.items():
            self._update_covariance(self._layers[index], seen)
        self.update()
        _, after = self._evaluate(closure)
        for index in before.keys() & after.keys():
            self._update_output_factor(self._layers[index], before[index], after[index])
            self._update_input_factor(self._layers[index], before[index])
        return loss

    def update(self) -> None:
        """Move along the averaged gradients, preconditioned layer by layer."""
        group = self.param_groups[0]
        directions = {p: self._averaged(p) for _, p in self.with_gradient()}
        for module in self._layers:
            params, state = layer_params(module), self.state[module.weight]
            if "input_inverse" not in state or not all(p in directions for p in params):
                continue
            matrix = to_matrix(*(directions[p] for p in params)) @ state["input_inverse"]
            matrix = self._pairs(module).inverse_product(matrix)
            directions.update(zip(params, from_matrix(matrix, module), strict=True))
        for param, direction in directions.items():
            param.add_(direction, alpha=-group["lr"])

    def _averaged(self, param: Tensor) -> Tensor:
        group = self.param_groups[0]
        assert param.grad is not None
        gradient = param.grad.add(param, alpha=group["weight_decay"])
        average = buffer_of(self.state[param], param, "average")
        return average.lerp_(gradient, 1 - group["momentum"])

    def _damped(self, covariance: Tensor) -> Tensor:
        root = self.param_groups[0]["damping"] ** 0.5
        damped: Tensor = covariance + root * torch.eye(len(covariance)).to(covariance)
        return damped

    def _update_covariance(self, module: MatrixLayer, seen: Observation) -> None:
        """Average the covariance; the first one is inverted in full."""
        state = self.state[module.weight]
        if "covariance" in state:
            state["covariance"].lerp_(seen.covariance, 1 - self.param_groups[0]["stat_decay"])
        else:
            state["covariance"] = seen.covariance
            state["input_inverse"] = torch.linalg.inv(self._damped(seen.covariance))

    def _update_input_factor(self, module: MatrixLayer, seen: Observation) -> None:
        state = self.state[module.weight]
        inverse = state["input_inverse"]
        s = inverse @ seen.row
        y = self._damped(state["covariance"]) @ s
        if is_safe(s, y, seen.row):
            state["input_inverse"] = bfgs_update(inverse, s, y)

    def _update_output_factor(
        self, module: MatrixLayer, before: Observation, after: Observation
    ) -> None:
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

    def _pairs(self, module: MatrixLayer) -> Pairs:
        state, empty = self.state[module.weight], module.weight.new_zeros(0, len(module.weight))
        return Pairs(state.get("s", empty), state.get("y", empty))
