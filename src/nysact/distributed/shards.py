"""Parameters that are spread over processes: which rows of a weight lie here, and as what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nysact.layers import Geometry, LayerAdapter

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

_PLAIN = (Tensor, nn.Parameter)


def is_spread(tensor: Any) -> TypeGuard[DTensor]:
    """Tell a ``DTensor`` from a plain tensor, without loading what defines it.

    Args:
        tensor: Anything.

    Returns:
        Whether it is one.
    """
    return type(tensor) not in _PLAIN and hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """Give what lies in this process of a tensor; call it without gradients.

    Args:
        tensor: A plain tensor or a ``DTensor``.

    Returns:
        The tensor itself, or its local part, which shares its memory.
    """
    return tensor.to_local() if is_spread(tensor) else tensor


def placement_of(tensor: Tensor) -> tuple[Any, ...]:
    """Say how a tensor is spread over processes; the same on each of them.

    Args:
        tensor: A plain tensor or a ``DTensor``.

    Returns:
        Something to compare.
    """
    return (tensor.device_mesh, tensor.placements) if is_spread(tensor) else ()


def local_gradient(param: Tensor) -> Tensor:
    """Give what lies in this process of a parameter's gradient, as the parameter itself lies.

    Args:
        param: A parameter that has a gradient.

    Returns:
        A tensor of the shape of the parameter's local part.
    """
    gradient = param.grad
    assert gradient is not None
    if is_spread(param) and is_spread(gradient) and gradient.placements != param.placements:
        # Terms that a tensor-parallel module left to be added up.
        gradient = gradient.redistribute(placements=param.placements)
    return local(gradient)


def set_gradient(param: Tensor, values: Tensor) -> None:
    """Overwrite a parameter's gradient, in place where it lies as the parameter does.

    Args:
        param: A parameter that has a gradient.
        values: As :func:`local_gradient` gave it.
    """
    assert param.grad is not None
    if placement_of(param.grad) == placement_of(param):
        local(param.grad).copy_(values)
    else:
        param.grad = sharded_like(values, param)


def sum_over_shards(values: Sequence[Tensor], params: Sequence[Tensor]) -> Tensor:
    """Add up numbers that were computed from the local parts of parameters.

    Args:
        values: Numbers, one a parameter.
        params: The parameters.

    Returns:
        Their sum over parameters and over the processes that hold other parts of them.
    """
    spread: dict[tuple[Any, ...], list[Tensor]] = {}
    for value, param in zip(values, params, strict=True):
        spread.setdefault(placement_of(param), []).append(value)
    total = torch.stack(spread.pop((), [values[0].new_zeros(())])).sum()
    for (mesh, placements), parts in spread.items():
        part = torch.stack(parts).sum()
        for index, placement in enumerate(placements):
            if not placement.is_replicate():
                dist.all_reduce(part, group=mesh.get_group(index))
        total = total + part
    return total


def sharded_like(values: Tensor, param: Tensor) -> Tensor:
    """Put a local part together as the parameter that it belongs to is.

    Args:
        values: In the shape of the parameter's local part.
        param: The parameter.

    Returns:
        ``values`` themselves, or a ``DTensor`` of the parameter's shape that shares their memory.
    """
    if not is_spread(param):
        return values
    from torch.distributed.tensor import DTensor

    mesh, placements = placement_of(param)
    return DTensor.from_local(
        values, mesh, placements, run_check=False, shape=param.shape, stride=param.stride()
    )


def spread_like(values: Tensor, param: Tensor) -> Tensor:
    """Spread a whole tensor over processes as a parameter is, without exchanging anything.

    Args:
        values: A plain tensor of the parameter's shape, the same on each process, or a ``DTensor``.
        param: The parameter.

    Returns:
        A ``DTensor`` that lies as the parameter does.
    """
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = placement_of(param)
    if is_spread(values):
        return values.redistribute(mesh, placements)
    return distribute_tensor(values, mesh, placements, src_data_rank=None)


def of_blocks(tensors: dict[str, Tensor], weight: Tensor, blocks: int | None) -> dict[str, Tensor]:
    """Show what differs between the blocks of a weight as parts of one tensor.

    Args:
        tensors: Name to tensor, each beginning with groups or a single number.
        weight: The weight that they belong to.
        blocks: Mesh dimension that its inputs are spread over, or ``None``.

    Returns:
        The tensors themselves, or ``DTensor`` whose first dimension goes through all blocks.
    """
    if blocks is None:
        return tensors
    from torch.distributed.tensor import DTensor, Shard

    mesh, _ = placement_of(weight)
    mesh = mesh if mesh.ndim == 1 else mesh[mesh.mesh_dim_names[blocks]]
    return {
        name: DTensor.from_local(value, mesh, [Shard(0)], run_check=False) if value.ndim else value
        for name, value in tensors.items()
    }


@dataclass(frozen=True)
class Part:
    """What of a weight lies in this process, as whole groups of matrices.

    Attributes:
        geometry: The matrices, rows that lie elsewhere counted.
        start: First of their groups.
        before: Rows of the first group that lie elsewhere.
        after: Rows of the last group that lie elsewhere.
        blocks: Mesh dimension that the inputs are spread over, or ``None``; each of its processes
            then has a covariance of its own.
        output_dim: Dimension of the weight that counts outputs.
    """

    geometry: Geometry
    start: int = 0
    before: int = 0
    after: int = 0
    blocks: int | None = None
    output_dim: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing lies here."""
        geometry = self.geometry
        rows = geometry.groups * geometry.out_features - self.before - self.after
        return rows * geometry.in_features == 0

    def goes_with(self, weight: Tensor, bias: Tensor) -> bool:
        """Tell whether a bias is spread over processes by the same rows as its weight.

        Args:
            weight: The weight that this is a part of.
            bias: Its bias.

        Returns:
            Whether each process holds the bias of the outputs that it holds, and no other.
        """
        if not (is_spread(weight) and is_spread(bias)):
            return is_spread(weight) == is_spread(bias)
        if self.output_dim and self.geometry.groups > 1:
            return False
        return weight.device_mesh == bias.device_mesh and all(
            type(one) is type(other)
            and getattr(one, "dim", self.output_dim) == self.output_dim
            and getattr(other, "dim", 0) == 0
            for one, other in zip(weight.placements, bias.placements, strict=True)
        )

    def to_matrix(self, adapter: LayerAdapter, values: Tensor) -> Tensor:
        """Lay out the local part of a tensor of the weight's shape as matrices.

        Args:
            adapter: The layer's adapter.
            values: The local part.

        Returns:
            ``(groups, out, in)`` of :attr:`geometry`, zeros for the rows that lie elsewhere.
        """
        return adapter.to_matrix(self.geometry, self._filled(values))

    def from_matrix(self, adapter: LayerAdapter, matrix: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`to_matrix`.

        Args:
            adapter: The layer's adapter.
            matrix: ``(groups, out, in)``.
            like: The local part of the weight.

        Returns:
            A tensor of the shape of ``like``.
        """
        if not (self.before or self.after):
            return adapter.from_matrix(self.geometry, matrix, like.shape)
        rows = like.shape[0] + self.before + self.after
        whole = adapter.from_matrix(self.geometry, matrix, (rows, *like.shape[1:]))
        return whole[self.before : rows - self.after]

    def to_rows(self, values: Tensor) -> Tensor:
        """Lay out the local part of a tensor of the bias's shape, one number a row.

        Args:
            values: The local part.

        Returns:
            ``(groups, out)`` of :attr:`geometry`.
        """
        return self._filled(values).reshape(self.geometry.groups, self.geometry.out_features)

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`to_rows`.

        Args:
            rows: ``(groups, out)``.
            like: The local part of the bias.

        Returns:
            A tensor of the shape of ``like``.
        """
        if self.before or self.after:
            flat = rows.reshape(-1)
            rows = flat[self.before : len(flat) - self.after]
        return rows.reshape(like.shape)

    def _filled(self, values: Tensor) -> Tensor:
        if not (self.before or self.after):
            return values
        return F.pad(values, (*(0, 0) * (values.ndim - 1), self.before, self.after))


def part_of(
    weight: Tensor, geometry: Geometry, output_dim: int, ranks: Collection[int]
) -> Part | str:
    """Find what of a weight lies in this process.

    Args:
        weight: The weight.
        geometry: The whole weight as matrices.
        output_dim: Dimension of the weight that counts outputs.
        ranks: The processes that share batches between them.

    Returns:
        The part, or the reason why it can't be preconditioned where it lies.
    """
    if not is_spread(weight):
        return Part(geometry, output_dim=output_dim)
    mesh, placements = placement_of(weight)
    blocks = None
    for index, placement in enumerate(placements):
        if placement.is_replicate() or mesh.size(index) == 1:
            continue
        dim = getattr(placement, "dim", None)
        if dim == output_dim:
            continue
        if dim is None or ranks_along(mesh, index) <= set(ranks):
            return (
                f"its weight is spread over processes as {placement}, which splits the inputs of "
                f"an output: pass shard_placement_fn=lambda p: Shard({output_dim}) for it to "
                "fully_shard, so that each output lies in one process"
            )
        if blocks is not None or geometry.groups > 1:
            return f"its weight is spread over processes as {placements}, in blocks of blocks"
        blocks = index
    return _part(weight, geometry, output_dim, blocks)


def ranks_along(mesh: DeviceMesh, dim: int) -> set[int]:
    """List the processes along one dimension of a mesh.

    Args:
        mesh: The mesh.
        dim: The dimension.

    Returns:
        Their global ranks.
    """
    return set(dist.get_process_group_ranks(mesh.get_group(dim)))


def split_along(tensor: Tensor, weight: Tensor, ranks: Collection[int]) -> str:
    """Find out whether processes see different inputs of a weight that they hold copies of.

    Args:
        tensor: Inputs of the weight.
        weight: The weight as the forward uses it.
        ranks: The processes that share batches between them.

    Returns:
        How the inputs are spread, if some process that has others shares no statistics; else
        nothing.
    """
    if not is_spread(tensor):
        return ""
    mesh, placements = placement_of(tensor)
    held = weight.placements if is_spread(weight) and weight.device_mesh == mesh else None
    for index, placement in enumerate(placements):
        copied = held is None or held[index].is_replicate()
        if not copied or placement.is_replicate() or mesh.size(index) == 1:
            continue
        others = ranks_along(mesh, index)
        if not others <= set(ranks):
            return f"{placement} over the ranks {sorted(others)}"
    return ""


def _part(weight: Tensor, geometry: Geometry, output_dim: int, blocks: int | None) -> Part:
    shape = local(weight.detach()).shape
    outputs = shape[output_dim]
    if blocks is not None:
        geometry = replace(geometry, in_features=shape[1 - output_dim])
    if output_dim or geometry.groups == 1:
        held = replace(geometry, out_features=outputs)
        return Part(held, blocks=blocks, output_dim=output_dim)
    start, out = _offset(weight), geometry.out_features
    first, last = start // out, -(-(start + outputs) // out)
    held = replace(geometry, groups=max(last - first, 0))
    before = start - first * out
    return Part(held, first, before, held.groups * out - before - outputs)


def _offset(weight: Any) -> int:
    """Row of the weight that the local part begins with."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    offsets = compute_local_shape_and_global_offset(
        weight.shape, weight.device_mesh, weight.placements
    )[1]
    return int(offsets[0])
