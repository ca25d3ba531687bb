"""When statistics are taken and factors refreshed, over every way of calling a model."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from nysact.curvature import SKETCHES

from ..oracles import Schedule, covariance, damped_inverse, error, randn, rows
from ..steps import (
    backward,
    exact,
    inverse_of,
    plain,
)

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


# --- intervals and windows -------------------------------------------------------------------


@pytest.mark.parametrize("intervals", [(1, 1), (1, 5), (2, 6), (3, 3), (5, 5)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_the_average_of_an_exact_covariance_continues(intervals, decay):
    cov_interval, inv_interval = intervals
    options = {"cov_interval": cov_interval, "inv_interval": inv_interval}
    module = nn.Linear(4, 2).double()
    optimizer = exact(module, stat_decay=decay, **options)
    expected = Schedule(decay, **options, restarts=False)
    for step in range(14):
        inputs = randn(5, 4, seed=step)
        expected.update(rows(module, inputs))
        backward(module, inputs)
        optimizer.step()
        assert error(inverse_of(optimizer, module), expected.inverse(0.1)) < 1e-12


@pytest.mark.parametrize("intervals", [(1, 1), (1, 5), (2, 6), (3, 3), (5, 5)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
@every_sketch
def test_the_average_of_a_sketch_restarts_with_each_window(intervals, decay, sketch):
    cov_interval, inv_interval = intervals
    options = {"cov_interval": cov_interval, "inv_interval": inv_interval}
    module = nn.Linear(8, 2, bias=False).double()
    optimizer = plain(module, rank=4, damping=0.1, sketch=sketch, stat_decay=decay, **options)
    expected = Schedule(decay, **options, restarts=True)
    # A covariance of rank 4, which a sketch of rank 4 holds in full.
    span = randn(4, 8, seed=99)
    for step in range(14):
        inputs = randn(5, 4, seed=step) @ span
        expected.update(rows(module, inputs))
        backward(module, inputs)
        optimizer.step()
        assert error(inverse_of(optimizer, module), expected.inverse(0.1)) < 1e-9


def constant_run(sketch, seed=0, windows=3, name="layer"):
    """Probes of every step, recovered from sketches of one fixed covariance."""
    module = nn.Linear(9, 2).double()
    model = nn.ModuleDict({name: module})
    inputs = randn(40, 9)
    A = covariance(rows(module, inputs))
    optimizer = plain(model, rank=3, sketch=sketch, inv_interval=4, seed=seed)
    probes = []
    for step in range(4 * windows):
        backward(module, inputs)
        optimizer.step()
        state = optimizer.state[module.weight]
        if step % 4:
            probes.append(torch.linalg.solve(A, state["sketch"] / state["rows"]).squeeze(0))
    return probes


@every_sketch
def test_probes_are_constant_within_a_window_and_new_in_the_next(sketch):
    probes = constant_run(sketch)
    for window in range(3):
        first, *others = probes[3 * window : 3 * window + 3]
        assert all(error(other, first) < 1e-10 for other in others)
    assert error(probes[3], probes[0]) > 1e-3
    assert error(probes[6], probes[3]) > 1e-3


@every_sketch
def test_probes_depend_on_the_seed_and_the_layers_name_alone(sketch):
    one, again, seed, name = (
        constant_run(sketch, windows=1, **options)
        for options in ({}, {}, {"seed": 1}, {"name": "other"})
    )
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert error(seed[0], one[0]) > 1e-3
    assert error(name[0], one[0]) > 1e-3


def test_columns_of_a_run_are_columns_of_the_identity():
    for probes in constant_run("columns"):
        rounded = probes.round()
        assert error(probes, rounded) < 1e-10
        assert torch.equal(rounded.sum(0), torch.ones(3, dtype=torch.float64))
        assert rounded.sum(1).max() == 1


def test_probes_of_the_next_window_are_the_subspace_found_in_the_last():
    module = nn.Linear(9, 2, bias=False).double()
    inputs = randn(40, 9)
    A = inputs.T @ inputs / 40
    optimizer = plain(module, rank=3, sketch="subspace", inv_interval=3)
    for step in range(8):
        backward(module, inputs)
        optimizer.step()
        state = optimizer.state[module.weight]
        if step % 3:
            # The basis has not changed since the refresh that began the window.
            sketch = state["sketch"] / state["rows"]
            assert error(sketch.squeeze(0), A @ state["basis"].squeeze(0)) < 1e-12
    assert state["refreshed"] == 6


@st.composite
def schedules(draw):
    """Intervals, a decay, and the micro-batches of two layers in each step, perhaps none."""
    cov_interval = draw(st.integers(1, 3))
    inv_interval = cov_interval * draw(st.integers(1, 4))
    parts = st.lists(st.integers(1, 3), max_size=3)
    steps = draw(st.lists(st.tuples(parts, parts), min_size=1, max_size=14))
    options = {"cov_interval": cov_interval, "inv_interval": inv_interval}
    return options, draw(st.sampled_from([0.0, 0.5, 0.95])), steps


def check_schedule(schedule, sketch):
    options, decay, steps = schedule
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(8, 2, bias=False), nn.Linear(8, 2, bias=False)]).double()
    optimizer = plain(model, rank=4, damping=0.1, sketch=sketch, stat_decay=decay, **options)
    expected = [Schedule(decay, **options, restarts=True) for _ in model]
    # Covariances of rank 4, which a sketch of rank 4 holds in full.
    span = randn(4, 8, seed=99)
    for index, parts in enumerate(steps):
        optimizer.zero_grad()
        for place, layer in enumerate(model):
            batches = [
                randn(size, 4, seed=100 * index + 10 * place + part) @ span
                for part, size in enumerate(parts[place])
            ]
            expected[place].update(*(rows(layer, inputs) for inputs in batches))
            for inputs in batches:
                backward(layer, inputs)
        optimizer.step()
        for place, layer in enumerate(model):
            inverse = inverse_of(optimizer, layer, str(place))
            if expected[place].covariance is None:
                assert torch.equal(inverse[0], torch.eye(8, dtype=torch.float64))
            else:
                assert error(inverse, expected[place].inverse(0.1)) < 1e-7


@given(schedules(), st.sampled_from(SKETCHES))
@hypothesis_settings(max_examples=30)
def test_any_schedule_is_followed(schedule, sketch):
    check_schedule(schedule, sketch)


@pytest.mark.slow
@given(schedules(), st.sampled_from(SKETCHES))
@hypothesis_settings(max_examples=500)
def test_any_schedule_is_followed_at_length(schedule, sketch):
    check_schedule(schedule, sketch)


# --- changes within a window -----------------------------------------------------------------


def test_a_tail_switched_during_training_acts_at_the_next_step():
    """Statistics and factors go on; only what the complement is damped with changes."""
    layer = nn.Linear(6, 2).double()
    optimizer = plain(layer, rank=2, inv_interval=50)
    backward(layer, randn(9, 6))
    optimizer.step()
    with_tail = optimizer.inverse("")
    optimizer.param_groups[0]["tail"] = False
    backward(layer, randn(9, 6, seed=1))
    optimizer.step()
    basis = optimizer.state[layer.weight]["basis"][0]
    complement = torch.eye(7).double() - basis @ basis.mT
    difference = optimizer.inverse("") - with_tail
    residual = optimizer.state[layer.weight]["residual"]
    assert error(difference, complement * (1 - 1 / (1 + residual))) < 1e-10


def test_a_group_added_later_may_bring_the_bias_of_a_layer():
    """The covariance gains a row and a column: its statistics restart, the others continue."""
    model = nn.ModuleList([nn.Linear(4, 3), nn.Linear(5, 2)]).double()
    optimizer = plain(model, [model[0].weight, model[1].weight])
    for layer, width in zip(model, (4, 5), strict=True):
        backward(layer, randn(6, width))
    optimizer.step()
    kept = optimizer.inverse("1")
    optimizer.add_param_group({"params": [model[0].bias]})
    assert optimizer.diagnostics()["0"]["refresh_age"] is None
    assert torch.equal(optimizer.inverse("1"), kept)
    backward(model[0], randn(6, 4))
    optimizer.step()
    assert optimizer.inverse("0").shape == (5, 5)


@pytest.mark.parametrize("sketch", ["columns", "gaussian"])
def test_an_interval_changed_within_a_window_restarts_the_average(sketch):
    """Other probes follow from it, and an average over two of them sketches nothing.

    What does sketch the covariance never overestimates it.
    """
    layer = nn.Linear(6, 2).double()
    optimizer = plain(layer, rank=2, sketch=sketch, tail=False, cov_interval=1, inv_interval=20)
    inputs = randn(9, 6)
    for step in range(12):
        optimizer.param_groups[0]["inv_interval"] = 20 if step < 8 else 3
        backward(layer, inputs)
        optimizer.step()
    exact = damped_inverse(covariance(rows(layer, inputs)), 1.0)
    assert torch.linalg.eigvalsh(optimizer.inverse("").unsqueeze(0) - exact).min() > -1e-10
