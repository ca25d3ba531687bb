"""The part of a layer's weight on this rank, arranged as matrices by the layer's adapter."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from nysact.distributed import RowShard, row_shard
from nysact.layers import Geometry, LayerAdapter


@dataclass(frozen=True)
class LocalShard(RowShard):
    """The rows of a weight on this rank, with their layout."""

    @property
    def geometry(self) -> Geometry:
        """The matrices, with the rows of their groups that other ranks hold."""
        return Geometry(self.groups, self.out_features, self.in_features)

    def to_matrix(self, adapter: LayerAdapter, values: Tensor) -> Tensor:
        """Arrange a tensor like the local weight as (groups, out, in), zeros for absent rows."""
        return adapter.to_matrix(self.geometry, self.padded(values))

    def from_matrix(self, adapter: LayerAdapter, matrix: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`to_matrix`."""
        shape = self.padded_shape(like.shape)
        return self.unpadded(adapter.from_matrix(self.geometry, matrix, shape))


def local_shard(
    weight: Tensor, geometry: Geometry, output_dim: int, ranks: Collection[int]
) -> LocalShard | str:
    """The shard of a weight, or the reason why it can't be preconditioned where it is."""
    matrices = geometry.groups, geometry.out_features, geometry.in_features
    found = row_shard(weight, matrices, output_dim, ranks)
    return found if isinstance(found, str) else LocalShard(**vars(found))
