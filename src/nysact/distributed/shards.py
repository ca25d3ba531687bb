"""Parameters that are sharded over processes: which rows of a weight this rank holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nysact.torch_private import first_local_row

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

_PLAIN = (Tensor, nn.Parameter)


def is_sharded(tensor: Any) -> TypeGuard[DTensor]:
    """Whether this is a DTensor, told without importing its class, which is slow."""
    return type(tensor) not in _PLAIN and hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor on this rank, sharing its memory; call it without gradients."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def placement_of(tensor: Tensor) -> tuple[Any, ...]:
    """Mesh and placements of a DTensor, the same on all ranks; nothing for a plain tensor."""
    return (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else ()


def local_gradient(param: Tensor) -> Tensor:
    """The part of a parameter's gradient that belongs to the parameter's local part."""
    gradient = param.grad
    assert gradient is not None
    if is_sharded(param) and is_sharded(gradient) and gradient.placements != param.placements:
        # A tensor-parallel module left terms to be summed.
        gradient = gradient.redistribute(placements=param.placements)
    return local(gradient)


def set_gradient(param: Tensor, values: Tensor) -> None:
    """Overwrite a parameter's local gradient, in place if it has the parameter's placement."""
    assert param.grad is not None
    if placement_of(param.grad) == placement_of(param):
        local(param.grad).copy_(values)
    else:
        param.grad = sharded_like(values, param)


def sum_over_shards(values: Sequence[Tensor], params: Sequence[Tensor]) -> Tensor:
    """Sum numbers, one computed from each parameter's local part, over parameters and shards."""
    sharded: dict[tuple[Any, ...], list[Tensor]] = {}
    for value, param in zip(values, params, strict=True):
        sharded.setdefault(placement_of(param), []).append(value)
    total = torch.stack(sharded.pop((), [values[0].new_zeros(())])).sum()
    for (mesh, placements), terms in sharded.items():
        term = torch.stack(terms).sum()
        for index, placement in enumerate(placements):
            if not placement.is_replicate():
                dist.all_reduce(term, group=mesh.get_group(index))
        total = total + term
    return total


def sharded_like(values: Tensor, param: Tensor) -> Tensor:
    """Wrap a local part as a DTensor like the parameter, sharing its memory."""
    if not is_sharded(param):
        return values
    from torch.distributed.tensor import DTensor

    mesh, placements = placement_of(param)
    return DTensor.from_local(
        values, mesh, placements, run_check=False, shape=param.shape, stride=param.stride()
    )


def shard_like(values: Tensor, param: Tensor) -> Tensor:
    """Shard a tensor that all ranks hold whole as the parameter is, without communication."""
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = placement_of(param)
    if is_sharded(values):
        return values.redistribute(mesh, placements)
    return distribute_tensor(values, mesh, placements, src_data_rank=None)


def join_blocks(
    tensors: Mapping[str, Tensor], weight: Tensor, block_dim: int | None
) -> Mapping[str, Tensor]:
    """Show the state of each block of a weight's inputs as one DTensor along dimension 0."""
    if block_dim is None:
        return tensors
    from torch.distributed.tensor import DTensor, Shard

    mesh, _ = placement_of(weight)
    mesh = mesh if mesh.ndim == 1 else mesh[mesh.mesh_dim_names[block_dim]]
    return {
        name: DTensor.from_local(value, mesh, [Shard(0)], run_check=False) if value.ndim else value
        for name, value in tensors.items()
    }


@dataclass(frozen=True)
class RowShard:
    """The rows of a weight on this rank, as whole groups of (out_features, in_features)."""

    groups: int  # of which this rank holds rows
    out_features: int  # rows of each, with those on other ranks
    in_features: int  # columns of each, without those on other ranks
    first_group: int = 0
    rows_before: int = 0  # of the first group, on earlier ranks
    rows_after: int = 0  # of the last group, on later ranks
    block_dim: int | None = None  # mesh dimension of ranks with other inputs, other covariances
    output_dim: int = 0  # dimension of the weight that counts outputs

    @property
    def is_empty(self) -> bool:
        """Whether this rank holds nothing of the weight."""
        rows = self.groups * self.out_features - self.rows_before - self.rows_after
        return rows * self.in_features == 0

    def matches_bias(self, weight: Tensor, bias: Tensor) -> bool:
        """Whether each rank holds the bias of exactly the outputs that it holds."""
        if not (is_sharded(weight) and is_sharded(bias)):
            return is_sharded(weight) == is_sharded(bias)
        if self.output_dim and self.groups > 1:
            return False
        return weight.device_mesh == bias.device_mesh and all(
            type(one) is type(other)
            and getattr(one, "dim", self.output_dim) == self.output_dim
            and getattr(other, "dim", 0) == 0
            for one, other in zip(weight.placements, bias.placements, strict=True)
        )

    def padded(self, values: Tensor) -> Tensor:
        """Add zeros for the rows of its groups that other ranks hold."""
        if not (self.rows_before or self.rows_after):
            return values
        return F.pad(values, (*(0, 0) * (values.ndim - 1), self.rows_before, self.rows_after))

    def padded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of :meth:`padded` for values of a shape."""
        return (shape[0] + self.rows_before + self.rows_after, *shape[1:])

    def unpadded(self, values: Tensor) -> Tensor:
        """Undo :meth:`padded`."""
        return values[self.rows_before : values.shape[0] - self.rows_after]

    def to_rows(self, bias: Tensor) -> Tensor:
        """Arrange the local part of the bias, or of a tensor like it, as (groups, out_features)."""
        return self.padded(bias).reshape(self.groups, self.out_features)

    def from_rows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`to_rows`."""
        return self.unpadded(rows.reshape(-1)).reshape(like.shape)


def row_shard(
    weight: Tensor, matrices: tuple[int, ...], output_dim: int, ranks: Collection[int]
) -> RowShard | str:
    """The shard of a weight of (groups, out, in), or why it can't be preconditioned in place."""
    groups, out, fan_in = matrices
    if not is_sharded(weight):
        return RowShard(groups, out, fan_in, output_dim=output_dim)
    mesh, placements = placement_of(weight)
    block_dim = None
    for index, placement in enumerate(placements):
        dim = getattr(placement, "dim", None)
        if placement.is_replicate() or mesh.size(index) == 1 or dim == output_dim:
            continue
        if dim is None or _ranks_along(mesh, index) <= set(ranks):
            return (
                f"its weight is sharded over processes as {placement}, which splits the inputs of "
                f"an output: pass shard_placement_fn=lambda p: Shard({output_dim}) for it to "
                "fully_shard, so that each output is on one process"
            )
        if block_dim is not None or groups > 1:
            return f"its weight is sharded over processes as {placements}, in blocks of blocks"
        block_dim = index
    shape = local(weight.detach()).shape
    outputs = shape[output_dim]
    fan_in = fan_in if block_dim is None else shape[1 - output_dim]
    if output_dim or groups == 1:
        return RowShard(groups, outputs, fan_in, block_dim=block_dim, output_dim=output_dim)
    start = first_local_row(weight)
    first, last = start // out, -(-(start + outputs) // out)
    held, before = max(last - first, 0), start - first * out
    return RowShard(held, out, fan_in, first, before, held * out - before - outputs)


def _ranks_along(mesh: DeviceMesh, dim: int) -> set[int]:
    return set(dist.get_process_group_ranks(mesh.get_group(dim)))


def check_inputs(layer: str, inputs: Sequence[Tensor], weight: Any, ranks: Collection[int]) -> None:
    """Refuse inputs that differ from those of ranks outside the group with the same weight."""
    for tensor in filter(is_sharded, inputs):
        mesh, placements = placement_of(tensor)
        held = weight.placements if is_sharded(weight) and weight.device_mesh == mesh else None
        for index, placement in enumerate(placements):
            copied = held is None or held[index].is_replicate()
            if not copied or placement.is_replicate() or mesh.size(index) == 1:
                continue
            others = _ranks_along(mesh, index)
            if not others <= set(ranks):
                raise ValueError(
                    f"the inputs of layer {layer!r} are sharded over processes, as {placement} "
                    f"over the ranks {sorted(others)}, and its weight is the same on all of them: "
                    "their preconditioners would differ, and the replicas of the weight drift "
                    "apart; build the optimizer with process_group= the mesh or group that these "
                    "processes form"
                )
