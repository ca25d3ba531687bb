"""What is reduced over processes, and who computes: nothing else knows of process groups."""

from nysact.distributed.join import ShadowSteps, check_joined, group_of_join
from nysact.distributed.processes import Processes, Sum, find_processes, wrapper_of
from nysact.distributed.shards import (
    Part,
    is_spread,
    local,
    local_gradient,
    of_blocks,
    part_of,
    placement_of,
    set_gradient,
    sharded_like,
    split_along,
    spread_like,
    sum_over_shards,
)
from nysact.distributed.sharing import pays, refresh_together

__all__ = [
    "Part",
    "Processes",
    "ShadowSteps",
    "Sum",
    "check_joined",
    "find_processes",
    "group_of_join",
    "is_spread",
    "local",
    "local_gradient",
    "of_blocks",
    "part_of",
    "pays",
    "placement_of",
    "refresh_together",
    "set_gradient",
    "sharded_like",
    "split_along",
    "spread_like",
    "sum_over_shards",
    "wrapper_of",
]
