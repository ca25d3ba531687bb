"""Replicas stay equal bit for bit, as the released code's do not."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nysact import NysAct
from nysact.experiments.baselines.released import ReleasedNysAct

from .training import network, parts, same, train, trained, wrap

SKETCHES = ["columns", "gaussian", "subspace"]


def replica(how, steps, sizes, **options):
    return parts(trained(how, steps, sizes=sizes, dtype=torch.float32, **options)[1])


@pytest.mark.parametrize("share_refresh", [False, True])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_replicas_are_equal_bit_for_bit(two, sketch, share_refresh):
    options = {"sketch": sketch, "share_refresh": share_refresh}
    assert same(*two(replica, "ddp", 20, (5, 3), **options))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "hsdp"])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_replicas_are_equal_bit_for_bit_at_length(four, how, sketch):
    options = {"sketch": sketch, "cov_interval": 5, "inv_interval": 20, "share_refresh": False}
    one, two, three, last = four(replica, how, 200, (3, 1, 2, 2), **options)
    # Processes 0 and 2, and 1 and 3, hold the same rows under HSDP.
    assert same(one, three)
    assert same(two, last)
    if how == "ddp":
        assert same(one, two)
    factors = {name for name in one if name.endswith(("basis", "root", "sketch", "residual"))}
    assert factors
    assert all(torch.equal(one[name], two[name]) for name in factors)


def drift(steps):
    """How far the replicas' weights are from each other, relative to their length."""
    found = {}
    for name in ("released", "nysact"):
        model = wrap(network(torch.float32), "ddp")
        settings = {"lr": 0.02, "rank": 3, "cov_interval": 2, "inv_interval": 4}
        # The released code knows no wrapper and nothing of other processes.
        optimizer = (
            ReleasedNysAct(model.module, **settings)
            if name == "released"
            else NysAct(model, **settings)
        )
        assert isinstance(model, DistributedDataParallel)
        train(model, optimizer, range(steps), sizes=[4, 4], dtype=torch.float32)
        mine = torch.cat([param.detach().flatten() for param in model.parameters()])
        other = mine.clone()
        dist.broadcast(other, 0)
        found[name] = float((mine - other).norm() / other.norm())
    return found


def test_replicas_of_the_released_code_drift_apart(two):
    reference, found = two(drift, 20)
    assert reference == {"released": 0, "nysact": 0}
    assert found["nysact"] == 0
    assert found["released"] > 1e-3
