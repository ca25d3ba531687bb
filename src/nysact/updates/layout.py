"""A parameter seen as the matrices that Muon orthogonalises, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nysact.layers import Geometry, LayerAdapter


@dataclass(frozen=True)
class MatrixLayout:
    """How a weight becomes matrices: one a group, and one a part of a packed projection."""

    adapter: LayerAdapter
    geometry: Geometry
    parts: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of each matrix."""
        return self.geometry.out_features // self.parts, self.geometry.in_features

    @property
    def cost(self) -> float:
        """Operations of a Newton-Schulz iteration on all matrices, up to a factor."""
        rows, columns = self.shape
        count = self.geometry.groups * self.parts
        return count * rows * columns * min(rows, columns)

    def matrices(self, values: Tensor) -> Tensor:
        """Arrange a tensor like the weight as (groups * parts, out / parts, fan_in)."""
        matrix = self.adapter.to_matrix(self.geometry, values)
        return matrix.reshape(-1, *self.shape)

    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """Undo :meth:`matrices`, for a weight of a shape."""
        geometry = self.geometry
        matrix = matrices.reshape(geometry.groups, geometry.out_features, geometry.in_features)
        return self.adapter.from_matrix(geometry, matrix, shape)
