"""Processes that run out of batches before others do."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from nysact import NysAct, Preconditioner

from ..oracles import randn
from .training import (
    SETTINGS,
    batch,
    distance,
    learned,
    loss_of,
    my_share,
    network,
    same,
    train,
    wrap,
)


def uneven(counts, share_refresh=False):
    """Process p has ``counts[p]`` batches."""
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, share_refresh=share_refresh, **SETTINGS)
    fit(model, optimizer, counts)
    return learned(optimizer)


def fit(model, optimizer, counts):
    processes = len(counts)
    with Join([model, optimizer]):
        for step in range(counts[dist.get_rank()]):
            inputs, targets = my_share(batch(step), [8 // processes] * processes)
            optimizer.zero_grad()
            (processes * loss_of(model(inputs), targets, 8)).backward()
            optimizer.step()
    optimizer.consolidate()


def one(counts):
    """The same in one process, on what is left of each batch."""
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    for step in range(max(counts)):
        inputs, targets = batch(step)
        kept = [i for i in range(8) if step < counts[i * len(counts) // 8]]
        optimizer.zero_grad()
        loss_of(model(inputs[kept]), targets[kept], 8).backward()
        optimizer.step()
    return learned(optimizer)


@pytest.mark.parametrize("counts", [(11, 6), (3, 10), (7, 0), (5, 5)], ids=str)
@pytest.mark.filterwarnings("ignore:Detected uneven input skew")
def test_the_rest_of_the_batches_count_for_all(two, counts):
    first, second = two(uneven, counts)
    assert same(first, second)
    assert distance(first, one(counts)) < 1e-10


def test_shared_refreshes_are_shared_by_the_joined_too(two):
    first, second = two(uneven, (10, 5), share_refresh=True)
    assert same(first, second)
    assert distance(first, one((10, 5))) < 1e-10


def unjoined(order):
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, **SETTINGS)
    context = model.join() if order == "model" else Join([optimizer, model])
    with pytest.raises(RuntimeError, match=r"Join\(\[model, optimizer\]\)"), context:
        train(model, optimizer, [0], sizes=[4, 4])
    return True


@pytest.mark.parametrize("order", ["model", "optimizer first"])
def test_a_join_that_would_hang_is_refused(two, order):
    assert two(unjoined, order) == [True, True]


def without_momentum():
    model = wrap(network(), "ddp")
    preconditioner = Preconditioner(model, **{k: v for k, v in SETTINGS.items() if k != "lr"})
    with Join([model, preconditioner]):
        for step in range(3 + 6 * dist.get_rank()):
            inputs, targets = my_share(batch(step), [4, 4])
            loss_of(model(inputs), targets, 8).backward()
            preconditioner.step()
            preconditioner.zero_grad()
    preconditioner.consolidate()
    return learned(preconditioner)


def test_the_engine_alone_joins_too(two):
    assert same(*two(without_momentum))


def uneven_nodes(counts):
    """Two nodes of two processes; those of one node may all run out before the others."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("across", "within"))
    groups = [mesh.get_group("within"), mesh.get_group("across")]
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, process_group=groups, **SETTINGS)
    fit(model, optimizer, counts)
    return learned(optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(9, 7, 4, 2), (3, 1, 2, 8)], ids=str)
def test_hierarchical_groups_join_too(four, counts):
    first, *others = four(uneven_nodes, counts)
    assert all(same(first, other) for other in others)
    assert distance(first, one(counts)) < 1e-10


def singly():
    """A world of one process, as a script for several has it when started as one."""
    mine = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    model = DistributedDataParallel(network(), process_group=mine)
    optimizer = NysAct(model, **SETTINGS)
    with Join([model, optimizer]):
        train(model, optimizer, range(3))
    return learned(optimizer)


def test_one_process_joins_itself(two):
    first, second = two(singly)
    assert same(first, second)
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(3))
    assert same(first, learned(optimizer))


def momentum_later():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    groups = [
        {"params": inner[0].parameters(), "momentum": 0.0},
        {"params": inner[2].parameters(), "momentum": 0.9},
    ]
    model = DistributedDataParallel(inner)
    optimizer = NysAct(model, groups, **SETTINGS)
    with Join([model, optimizer]):
        for step in range(2 + 3 * dist.get_rank()):
            optimizer.zero_grad()
            model(randn(4, 6, seed=step)).square().mean().backward()
            optimizer.step()
    optimizer.consolidate()
    return learned(optimizer)


def test_momentum_of_any_group_is_handed_over(two):
    first, second = two(momentum_later)
    assert first["2.weight.momentum_buffer"].abs().sum() > 0
    assert same(first, second)


def joined_before(built):
    """The framework leaves the mark of a join on the model when the join is over."""
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, **SETTINGS)
    with model.join():
        model(batch(0)[0])
    if built == "after":
        optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(3), sizes=[4, 4])
    with Join([model, optimizer]):
        train(model, optimizer, [3], sizes=[4, 4])
    with pytest.raises(RuntimeError, match=r"Join\(\[model, optimizer\]\)"), model.join():
        train(model, optimizer, [4], sizes=[4, 4])
    return True


@pytest.mark.parametrize("built", ["before", "after"])
def test_a_join_that_is_over_hinders_no_step(two, built):
    assert two(joined_before, built) == [True, True]
