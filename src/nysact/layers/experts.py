"""Experts of a mixture, whose weights lie one behind the other in one tensor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import DenseMap
from nysact.layers.registry import register


# This decorator makes the forward of all such modules of transformers, and names what differs.
@register("transformers.integrations.moe.use_experts_implementation")
class ExpertsAdapter(LayerAdapter):
    """The first projections of all experts: one group an expert, with the tokens sent to it."""

    uses_call = False

    def __init__(self, weight_name: str, *, transposed: bool) -> None:
        self.weight_name = self.suffix = weight_name
        self.bias_name = f"{weight_name}_bias"
        self.output_dim = 2 if transposed else 1

    @classmethod
    def parts(cls, module: Any) -> Sequence[LayerAdapter]:
        first, transposed = _first_projection(module), module.is_transposed
        return cls(first, transposed=transposed), _SecondAdapter("down_proj", transposed=transposed)

    def geometry(self, module: nn.Module) -> Geometry:
        shape = getattr(module, self.weight_name).shape
        return Geometry(shape[0], shape[self.output_dim], shape[3 - self.output_dim])

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        tensors = call.argument(0, "hidden_states"), call.argument(1, "top_k_index")
        return tensors if all(isinstance(tensor, Tensor) for tensor in tensors) else ()

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> DenseMap:
        tokens, experts = inputs
        groups = self.geometry(module).groups
        return ExpertsMap(self._rows(module, _sent(tokens, experts, groups)), bias=bias)

    def _rows(self, module: Any, tokens: Sequence[Tensor]) -> Sequence[Tensor]:
        """What each expert's weight multiplies, by the tokens that are sent to the expert."""
        return tokens

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        return weight if self.output_dim == 1 else weight.mT

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        return self.to_matrix(geometry, matrix)


class _SecondAdapter(ExpertsAdapter):
    """The second projections: they read what the first ones give, which is computed again."""

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        # A shard of the first projections would not do.
        first = getattr(module, _first_projection(module))
        return () if hasattr(first, "to_local") else super().inputs(module, call)

    def _rows(self, module: Any, tokens: Sequence[Tensor]) -> Sequence[Tensor]:
        name, gate = (
            _first_projection(module),
            module._apply_gate if module.has_gate else module.act_fn,
        )
        weights = self.to_matrix(self.geometry(module), getattr(module, name)).to(tokens[0].dtype)
        hidden = [rows @ weight.T for rows, weight in zip(tokens, weights, strict=True)]
        if module.has_bias:
            biases = getattr(module, f"{name}_bias").to(tokens[0].dtype)
            hidden = [rows + bias for rows, bias in zip(hidden, biases, strict=True)]
        return [gate(rows) for rows in hidden]


class ExpertsMap(DenseMap):
    """Rows of each expert; one that has none borrows some of the others', with next to no weight.

    Every expert then has a covariance as soon as one has, and its own rows outweigh what it
    borrowed.

    Args:
        inputs: One tensor per expert, ``(rows, fan_in)``.
        bias: Whether every row ends in a constant 1.
    """

    _WEIGHT_OF_BORROWED = 1e-12

    def __init__(self, inputs: Sequence[Tensor], *, bias: bool) -> None:
        borrowed = torch.cat(list(inputs))[:: len(inputs)]
        super().__init__([rows if len(rows) else borrowed for rows in inputs], bias=bias)
        weights = [1.0 if len(rows) else self._WEIGHT_OF_BORROWED for rows in inputs]
        self.rows = [weight * rows for weight, rows in zip(weights, self.rows, strict=True)]
        self._weights = borrowed.new_tensor(weights)

    def sketch(self, probes: Tensor) -> Tensor:
        return super().sketch(probes) * self._weights[:, None, None]

    def squared_norm(self) -> Tensor:
        return super().squared_norm() * self._weights

    def row_sum(self) -> Tensor:
        return super().row_sum() * self._weights[:, None]

    def covariance(self) -> Tensor:
        return super().covariance() * self._weights[:, None, None]


def _first_projection(module: Any) -> str:
    return "gate_up_proj" if module.has_gate else "up_proj"


def _sent(tokens: Tensor, experts: Tensor, count: int) -> Sequence[Tensor]:
    """The tokens that each expert gets; ``experts`` has a row a token, (tokens, choices)."""
    flat = experts.long().flatten()
    # An expert of another rank has a number beyond the last one here.
    counts = torch.bincount(flat, minlength=count)[:count].tolist()
    order = flat.argsort(stable=True)[: sum(counts)]
    sent: Sequence[Tensor] = tokens[order // experts.shape[1]].split(counts)
    return sent
