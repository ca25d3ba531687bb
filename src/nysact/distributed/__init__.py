"""Process groups and sharded tensors; nothing here knows layers or optimizers."""

from nysact.distributed.exchange import Exchange as Exchange
from nysact.distributed.exchange import Split as Split
from nysact.distributed.exchange import split_of as split_of
from nysact.distributed.groups import Group as Group
from nysact.distributed.groups import check_no_join as check_no_join
from nysact.distributed.groups import refuse_join as refuse_join
from nysact.distributed.groups import sharded_parameters as sharded_parameters
from nysact.distributed.groups import wrapper_of as wrapper_of
from nysact.distributed.processes import Processes as Processes
from nysact.distributed.processes import find_processes as find_processes
from nysact.distributed.processes import processes_pending as processes_pending
from nysact.distributed.shards import RowShard as RowShard
from nysact.distributed.shards import check_inputs as check_inputs
from nysact.distributed.shards import is_sharded as is_sharded
from nysact.distributed.shards import join_blocks as join_blocks
from nysact.distributed.shards import local as local
from nysact.distributed.shards import local_gradient as local_gradient
from nysact.distributed.shards import placement_of as placement_of
from nysact.distributed.shards import row_shard as row_shard
from nysact.distributed.shards import set_gradient as set_gradient
from nysact.distributed.shards import shard_like as shard_like
from nysact.distributed.shards import sharded_like as sharded_like
from nysact.distributed.shards import sum_over_shards as sum_over_shards
from nysact.distributed.sharing import assign as assign
from nysact.distributed.sharing import rank_slices as rank_slices
from nysact.distributed.sharing import sharing_pays as sharing_pays
