"""Processes that run out of batches before others do."""

import pytest
import torch.distributed as dist
from torch.distributed.algorithms.join import Join

from nysact import NysAct, Preconditioner

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
    with Join([model, optimizer]):
        for step in range(counts[dist.get_rank()]):
            inputs, targets = my_share(batch(step), [4, 4])
            optimizer.zero_grad()
            (2 * loss_of(model(inputs), targets, 8)).backward()
            optimizer.step()
    optimizer.consolidate()
    return learned(optimizer)


def one(counts):
    """The same in one process, on what is left of each batch."""
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    for step in range(max(counts)):
        inputs, targets = batch(step)
        kept = [i for i in range(8) if step < counts[i // 4]]
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
