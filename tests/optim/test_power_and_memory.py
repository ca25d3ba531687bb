"""Powers of the inverse, and sketches that go on over a refresh."""

import pytest
import torch
from torch import nn

from ..oracles import Schedule, covariance, damped_inverse, damped_power, error, randn, rows
from ..steps import backward, inverse_of, plain

POWERS = [0.25, 0.5, 1.0]


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("rank", [4, 100], ids=["low-rank", "whole"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_power_of_the_damped_covariance(power, rank, groups):
    torch.manual_seed(0)
    module = nn.Conv2d(4 * groups, 2 * groups, 2, groups=groups, bias=False).double()
    optimizer = plain(module, rank=rank, damping=0.2, power=power)
    # Three images of one patch: covariances of rank 3, which both ranks hold in full.
    inputs = randn(3, 4 * groups, 2, 2)
    backward(module, inputs)
    optimizer.step()
    expected = damped_power(covariance(rows(module, inputs)), 0.2, power)
    assert error(inverse_of(optimizer, module), expected) < 1e-10


@pytest.mark.parametrize(
    ("module", "shape", "power"),
    [(nn.Linear(4, 4, bias=False), (3, 4), 0.5), (nn.Conv1d(4, 4, 1, bias=False), (3, 4, 1), 1.0)],
    ids=["linear", "convolution"],
)
def test_the_automatic_power_depends_on_the_kind_of_layer(module, shape, power):
    optimizer = plain(module.double(), rank=4, damping=0.2, power="auto")
    inputs = randn(*shape)
    backward(module, inputs)
    optimizer.step()
    expected = damped_power(covariance(rows(module, inputs)), 0.2, power)
    assert error(inverse_of(optimizer, module), expected) < 1e-10


@pytest.mark.parametrize("power", POWERS)
def test_a_power_acts_on_the_tail_too(power):
    inverses = []
    for each in (1.0, power):
        module = nn.Linear(8, 2).double()
        optimizer = plain(module, rank=3, damping=0.2, power=each)
        backward(module, randn(30, 8))
        optimizer.step()
        inverses.append(optimizer.inverse(""))
    values, vectors = torch.linalg.eigh(inverses[0])
    assert error(inverses[1], (vectors * values.pow(power)) @ vectors.mT) < 1e-10


@pytest.mark.parametrize("intervals", [(1, 1), (1, 5), (2, 6)])
@pytest.mark.parametrize("decay", [0.5, 0.95])
def test_a_long_memory_of_a_covariance_that_the_rank_holds_is_the_long_average(intervals, decay):
    cov_interval, inv_interval = intervals
    options = {"cov_interval": cov_interval, "inv_interval": inv_interval}
    module = nn.Linear(8, 2, bias=False).double()
    optimizer = plain(module, rank=4, damping=0.1, stat_decay=decay, memory="long", **options)
    expected = Schedule(decay, **options, restarts=False)
    span = randn(4, 8, seed=99)
    for step in range(14):
        inputs = randn(5, 4, seed=step) @ span
        expected.update(rows(module, inputs))
        optimizer.zero_grad()
        backward(module, inputs)
        optimizer.step()
        assert error(inverse_of(optimizer, module), expected.inverse(0.1)) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_a_long_memory_of_a_constant_covariance_comes_to_what_a_window_does(seed):
    """It takes more refreshes: what the first bases missed leaves the average step by step."""
    inputs = randn(40, 9, seed=seed) * torch.logspace(0, -2, 9, dtype=torch.float64)
    errors = {}
    for memory in ("window", "long"):
        module = nn.Linear(9, 2).double()
        options = {"rank": 3, "damping": 0.01, "inv_interval": 3, "stat_decay": 0.5}
        optimizer = plain(module, memory=memory, **options)
        for _ in range(45):
            optimizer.zero_grad()
            backward(module, inputs)
            optimizer.step()
        exact = damped_inverse(covariance(rows(module, inputs)), 0.01)
        errors[memory] = error(inverse_of(optimizer, module), exact)
    assert errors["long"] == pytest.approx(errors["window"], rel=1e-6)
