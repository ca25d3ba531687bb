"""What is sent, counted by a hook on the collectives."""

import pytest
import torch
import torch.distributed as dist
from benchmarks.communication import SCHEMES, Network, Traffic, weights_of

from nysact import NysAct

from .training import SETTINGS, batch, loss_of, my_share, network, wrap

STEPS, WINDOW = 9, SETTINGS["inv_interval"]


def sent(how, share_refresh=False, **options):
    """Numbers that each step hands to each collective, and what the count on paper is."""
    model = wrap(network(), how)
    optimizer = NysAct(model, share_refresh=share_refresh, **{**SETTINGS, **options})
    steps = []
    for step in range(STEPS):
        inputs, targets = my_share(batch(step), [4, 4])
        optimizer.zero_grad()
        loss_of(model(inputs), targets, 8).backward()
        with Traffic() as traffic:
            optimizer.step()
        steps.append(traffic.numbers)
    groups = len({id(layer.pending.window) for layer in optimizer.layers.values()})
    weights = weights_of(optimizer)
    paper = Network("paper", weights, SETTINGS["rank"], SETTINGS["cov_interval"], WINDOW)
    return steps, paper, groups


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("sketch", ["columns", "subspace"])
def test_one_bucket_a_window_and_nothing_else(two, how, sketch):
    for steps, paper, groups in two(sent, how, sketch=sketch):
        once = paper.inv_interval * SCHEMES[0].reduced(paper)
        # The first step also compares settings; a bucket says of each group of layers who captured.
        assert steps[0] == {"allreduce_": [2, once + groups]}
        for step, numbers in enumerate(steps[1:], 1):
            assert numbers == ({} if step % WINDOW else {"allreduce_": [once + groups]})
        sketches = paper.total(lambda m, d: d * min(3, d))
        assert once == sketches + 2 * paper.total(lambda m, d: 1)


def test_shared_refreshes_send_the_factors_too(two):
    for steps, paper, _ in two(sent, "ddp", share_refresh=True):
        factors = WINDOW * (SCHEMES[1].reduced(paper) - SCHEMES[0].reduced(paper))
        for step in (0, WINDOW, 2 * WINDOW):
            *_, mine = steps[step]["allreduce_"]
            assert mine == factors


def clipped():
    from nysact import FOOF

    model = wrap(network(), "fsdp")
    options = {k: v for k, v in SETTINGS.items() if k != "rank"}
    optimizer = FOOF(model, kl_clip=1e-3, **options)
    (inputs, targets) = my_share(batch(0), [4, 4])
    loss_of(model(inputs), targets, 8).backward()
    optimizer.step()
    loss_of(model(inputs), targets, 8).backward()
    with Traffic() as traffic:
        optimizer.step()
    return traffic.numbers, traffic.bytes


def test_clipping_by_the_whole_model_costs_one_number_under_fully_shard(two):
    assert two(clipped) == [({"allreduce_": [1]}, 8)] * 2


def counted():
    """Every collective that the framework offers this library."""
    values = torch.ones(3, dtype=torch.float32)
    with Traffic() as traffic:
        dist.all_reduce(values)
        dist.all_reduce(values, async_op=True).wait()
        dist.broadcast(values, 0)
        dist.all_gather_into_tensor(torch.empty(6), values)
        dist.all_gather([torch.empty(3), torch.empty(3)], values)
        dist.reduce_scatter_tensor(torch.empty(2), torch.ones(4))
    return traffic.numbers, traffic.bytes


def test_the_counter_counts_what_is_handed_in(two):
    expected = {
        "allreduce_": [3, 3],
        "broadcast_": [3],
        "_allgather_base_": [3],
        "allgather_": [3],
        "_reduce_scatter_base_": [4],
    }
    assert two(counted) == [(expected, 4 * 19)] * 2
