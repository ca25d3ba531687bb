"""What is reduced over processes, and who computes: nothing else knows of process groups."""

from nysact.distributed.join import ShadowSteps
from nysact.distributed.processes import Processes, Sum, find_processes
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
    spread_like,
    sum_over_shards,
)
from nysact.distributed.sharing import pays, refresh_together

__all__ = [
    "Part",
    "Processes",
    "ShadowSteps",
    "Sum",
    "find_processes",
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
    "spread_like",
    "sum_over_shards",
]
