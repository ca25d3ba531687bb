"""One preconditioned layer: its parameters, their geometry and where its statistics go."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nysact.distributed import RowShard, is_sharded, local, local_gradient
from nysact.engine.pending import PendingStatistics
from nysact.layers import Geometry, LayerAdapter


@dataclass(eq=False)
class Layer:
    """A weight that is preconditioned, with the modules that share it.

    Attributes:
        names: Names of the modules that use the weight; the first one names the layer.
        adapter: The geometry of this kind of layer.
        geometry: The weight as matrices, without the bias.
        shard: The rows of them that this rank holds.
        weight: The weight.
        bias: The bias, if it is preconditioned with the weight.
        group: The weight's parameter group.
        ranks: The ranks that share each batch.
        pending: The statistics of the forward calls since the last step.
    """

    names: list[str]
    adapter: LayerAdapter
    geometry: Geometry
    shard: RowShard
    weight: nn.Parameter
    bias: nn.Parameter | None
    group: dict[str, Any]
    ranks: frozenset[int] = frozenset()
    pending: PendingStatistics = field(init=False)

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def has_bias(self) -> bool:
        """Whether the covariance has a last row and column for the bias."""
        return self.bias is not None and self.bias.requires_grad

    @property
    def statistic_dtype(self) -> torch.dtype:
        """The weight's dtype, float32 at least."""
        return torch.promote_types(self.weight.dtype, torch.float32)

    @property
    def is_sharded(self) -> bool:
        return is_sharded(self.weight)

    @property
    def is_plain(self) -> bool:
        """Whether gradients become matrices, and back, by a change of shape."""
        adapter, base = type(self.adapter), LayerAdapter
        by_shape = (adapter.to_matrix, adapter.from_matrix) == (base.to_matrix, base.from_matrix)
        return by_shape and not self.is_sharded and self.weight.is_contiguous()

    @property
    def _held(self) -> Geometry:
        """The matrices with a row on this rank, with their rows on other ranks."""
        return Geometry(self.shard.groups, self.shard.out_features, self.shard.in_features)

    def gradients(self, dtype: torch.dtype, *, bias: bool) -> tuple[Tensor, Tensor | None]:
        """Local gradients of the weight, (groups, out, fan_in), and the bias, (groups, out)."""
        padded = self.shard.padded(local_gradient(self.weight))
        weight = self.adapter.to_matrix(self._held, padded).to(dtype)
        if not bias or self.bias is None:
            return weight, None
        if self.bias.grad is None:
            return weight, weight.new_zeros(weight.shape[:2])
        return weight, self.shard.to_rows(local_gradient(self.bias)).to(dtype)

    def write_back(self, weight: Tensor, bias: Tensor | None) -> dict[Tensor, Tensor]:
        """Undo :meth:`gradients`: each parameter with a gradient in its own layout and dtype."""
        like = local(self.weight)
        padded = self.adapter.from_matrix(self._held, weight, self.shard.padded_shape(like.shape))
        result = self.shard.unpadded(padded)
        if result.dtype != like.dtype or result.stride() != like.stride():
            # In the weight's own layout, so that the update runs on tensors of one layout.
            result = torch.empty_like(like).copy_(result)
        written: dict[Tensor, Tensor] = {self.weight: result}
        if bias is not None and self.bias is not None and self.bias.grad is not None:
            rows = self.shard.from_rows(bias, local(self.bias))
            written[self.bias] = rows.to(self.bias.dtype)
        return written
