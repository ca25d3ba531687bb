"""Joins for uneven batches: refused, since ranks without batches would miss the sums."""

import pytest
import torch.distributed as dist
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from nysact import NysAct, Preconditioner

from .training import SETTINGS, alone, batch, distance, learned, network, same, train, wrap

REFUSED = r"do not support model\.join\(\) or Join.*same number of batches.*DistributedSampler"


def inside_join(build, options):
    """The model's own join shows at the first step; nothing has been changed by then."""
    model = wrap(network(), "ddp")
    optimizer = build(model, **options)
    before = [param.detach().clone() for param in model.parameters()]
    with pytest.raises(RuntimeError, match=REFUSED), model.join():
        train(model, optimizer, [0], sizes=[4, 4])
    return all(map(same_tensor, before, model.parameters()))


def same_tensor(left, right):
    return bool((left == right).all())


@pytest.mark.parametrize("build", [NysAct, Preconditioner])
def test_a_step_inside_a_join_of_the_model_is_refused(two, build):
    options = {k: v for k, v in SETTINGS.items() if build is NysAct or k != "lr"}
    assert two(inside_join, build, options) == [True, True]


def joined(order):
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, **SETTINGS)
    pair = [model, optimizer] if order == "model first" else [optimizer, model]
    with pytest.raises(RuntimeError, match=REFUSED):
        Join(pair)
    return True


@pytest.mark.parametrize("order", ["model first", "optimizer first"])
def test_an_optimizer_takes_part_in_no_join(two, order):
    assert two(joined, order) == [True, True]


def joined_before(built):
    """The framework leaves the mark of a join on the model when the join is over."""
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, **SETTINGS)
    with model.join():
        model(batch(0)[0])
    if built == "after":
        optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(3), sizes=[4, 4])
    with pytest.raises(RuntimeError, match=REFUSED), model.join():
        train(model, optimizer, [4], sizes=[4, 4])
    return True


@pytest.mark.parametrize("built", ["before", "after"])
def test_a_join_that_is_over_hinders_no_step(two, built):
    assert two(joined_before, built) == [True, True]


def singly():
    """A world of one process, as a script for several has it when started as one."""
    mine = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    model = DistributedDataParallel(network(), process_group=mine)
    optimizer = NysAct(model, **SETTINGS)
    with model.join():
        train(model, optimizer, range(3))
    return learned(optimizer)


def test_a_process_that_is_alone_may_join_itself(two):
    first, second = two(singly)
    assert same(first, second)
    assert distance(first, alone(3)) == 0
