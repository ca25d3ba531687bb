"""Whole tensors from their parts on several processes, each on one of them, and back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Size, Tensor

from nysact.distributed.shards import is_sharded


@dataclass(frozen=True)
class Split:
    """How a tensor is divided along a dimension between the processes of a group."""

    shape: Size
    dim: int
    group: dist.ProcessGroup

    def part(self, rank: int) -> Size:
        """Shape of the part of a rank of the group, by torch's rule for uneven shards."""
        size, processes = self.shape[self.dim], dist.get_world_size(self.group)
        chunk = -(-size // processes)
        held = min(chunk, max(size - rank * chunk, 0))
        return Size((*self.shape[: self.dim], held, *self.shape[self.dim + 1 :]))


def split_of(param: Tensor) -> Split | str | None:
    """How a parameter is divided; None if it is whole here, a string if in more than one way."""
    if not is_sharded(param):
        return None
    mesh, placements = param.device_mesh, param.placements
    sharded = [
        (index, each)
        for index, each in enumerate(placements)
        if not each.is_replicate() and mesh.size(index) > 1
    ]
    if not sharded:
        return None
    (index, placement), *others = sharded
    if others or not placement.is_shard():
        return f"sharded over processes as {placements}, along several dimensions of its mesh"
    return Split(param.shape, getattr(placement, "dim", 0), mesh.get_group(index))


class Exchange:
    """Gives each of several tensors to its owner, a rank of the group, and takes it back."""

    def __init__(self, splits: Sequence[Split], owners: Sequence[int]) -> None:
        self._splits, self._group = splits, splits[0].group
        ranks = range(dist.get_world_size(self._group))
        self._owned = [[i for i, owner in enumerate(owners) if owner == r] for r in ranks]
        self._here = dist.get_rank(self._group)
        self.mine = self._owned[self._here]

    def assemble(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The whole tensors that this rank owns, from the parts that each rank holds of all."""
        outgoing = [[parts[i] for i in owned] for owned in self._owned]
        shapes = [[self._splits[i].part(rank) for i in self.mine] for rank in self._ranks]
        received = self._all_to_all(outgoing, shapes, parts[0])
        return [
            torch.cat(pieces, dim=self._splits[i].dim)
            for i, *pieces in zip(self.mine, *received, strict=True)
        ]

    def distribute(self, wholes: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        """Undo :meth:`assemble`; ``like`` has the dtype and device."""
        cut = [self._cut(i, whole) for i, whole in zip(self.mine, wholes, strict=True)]
        outgoing = [[pieces[rank] for pieces in cut] for rank in self._ranks]
        shapes = [[self._splits[i].part(self._here) for i in owned] for owned in self._owned]
        received = self._all_to_all(outgoing, shapes, like)
        pairs = zip(self._owned, received, strict=True)
        found = {i: part for owned, parts in pairs for i, part in zip(owned, parts, strict=True)}
        return [found[i] for i in range(len(self._splits))]

    @property
    def _ranks(self) -> range:
        return range(len(self._owned))

    def _cut(self, index: int, whole: Tensor) -> Sequence[Tensor]:
        split = self._splits[index]
        return torch.split(whole, [split.part(r)[split.dim] for r in self._ranks], split.dim)

    def _all_to_all(
        self, outgoing: Sequence[Sequence[Tensor]], shapes: Sequence[Sequence[Size]], like: Tensor
    ) -> list[list[Tensor]]:
        """Send each rank its tensors; what arrives from each has these shapes."""
        sizes = [[shape.numel() for shape in each] for each in shapes]
        received = like.new_empty(sum(map(sum, sizes)))
        flat = [tensor.reshape(-1) for tensors in outgoing for tensor in tensors]
        sent = torch.cat(flat) if flat else like.new_empty(0)
        counts = [sum(tensor.numel() for tensor in tensors) for tensors in outgoing]
        dist.all_to_all_single(received, sent, [*map(sum, sizes)], counts, group=self._group)
        pieces = iter(received.split([size for each in sizes for size in each]))
        return [[next(pieces).view(shape) for shape in each] for each in shapes]
