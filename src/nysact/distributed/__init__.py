"""Process groups and sharded tensors; nothing here knows layers or optimizers."""

from nysact.distributed.exchange import Exchange, Split, split_of
from nysact.distributed.groups import Group, wrapper_of
from nysact.distributed.join import check_no_join, refuse_join
from nysact.distributed.processes import Processes, Sum, find_processes, processes_pending
from nysact.distributed.shards import (
    RowShard,
    is_sharded,
    join_blocks,
    local,
    local_gradient,
    placement_of,
    row_shard,
    set_gradient,
    shard_like,
    sharded_like,
    split_inputs,
    sum_over_shards,
)
from nysact.distributed.sharing import assign, rank_slices, sharing_pays

__all__ = [
    "Exchange",
    "Group",
    "Processes",
    "RowShard",
    "Split",
    "Sum",
    "assign",
    "check_no_join",
    "find_processes",
    "is_sharded",
    "join_blocks",
    "local",
    "local_gradient",
    "placement_of",
    "processes_pending",
    "rank_slices",
    "refuse_join",
    "row_shard",
    "set_gradient",
    "shard_like",
    "sharded_like",
    "sharing_pays",
    "split_inputs",
    "split_of",
    "sum_over_shards",
    "wrapper_of",
]
