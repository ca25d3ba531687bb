"""When statistics are taken and factors refreshed, over every way of calling a model."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from nysact.curvature import SKETCHES

from ..oracles import Schedule, average, covariance, damped_inverse, error, randn, rows
from ..steps import (
    backward,
    images,
    inverse_of,
    plain,
    same,
    set_gradients,
    state_of,
    two_layers,
)

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


def exact(module, **options):
    """An optimizer whose inverse tells the covariance that it was computed from."""
    return plain(module, rank=1000, damping=0.1, **options)


# --- intervals and windows -------------------------------------------------------------------


@pytest.mark.parametrize("intervals", [(1, 1), (1, 5), (2, 6), (3, 3), (5, 5)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_the_average_of_an_exact_covariance_goes_on(intervals, decay):
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
def test_the_average_of_a_sketch_starts_anew_each_window(intervals, decay, sketch):
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


# --- every way of calling a model ------------------------------------------------------------

SPLITS = [[6], [3, 3], [1, 2, 3], [1] * 6]


@pytest.mark.parametrize("split", SPLITS[1:], ids=str)
@pytest.mark.parametrize("subsample", [1, 2, 4, "auto"])
@every_sketch
def test_micro_batches_give_the_statistics_of_their_union(split, subsample, sketch):
    inverses = []
    for sizes in (SPLITS[0], split):
        torch.manual_seed(0)
        module = nn.Conv2d(2, 3, 3, padding=1).double()
        optimizer = plain(module, rank=4, sketch=sketch, subsample=subsample, inv_interval=2)
        for step in range(3):
            for part in randn(6, 2, 16, 16, seed=step).split(sizes):
                backward(module, part)
            optimizer.step()
            optimizer.zero_grad()
        inverses.append(optimizer.inverse(""))
    assert error(inverses[1], inverses[0]) < 1e-10


@pytest.mark.parametrize("subsample", [1, 2, 4, 5])
def test_every_nth_sample_is_taken_over_all_calls(subsample):
    module = nn.Linear(4, 2).double()
    optimizer = exact(module, subsample=subsample)
    inputs = randn(11, 4)
    for part in inputs.split([2, 1, 5, 3]):
        backward(module, part)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, inputs[::subsample])), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_auto_takes_every_sample_where_a_sample_has_few_rows():
    module = nn.Conv2d(2, 2, 3, padding=1).double()
    optimizer = exact(module, subsample="auto")
    inputs = randn(6, 2, 5, 6)
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


@pytest.mark.parametrize(("side", "stride"), [(6, 2), (8, 4), (16, 16), (32, 32)])
def test_auto_takes_fewer_samples_where_a_sample_has_many_rows(side, stride):
    module = nn.Conv2d(2, 2, 3, padding=1).double()
    optimizer = exact(module, subsample="auto")
    inputs = randn(65, 2, side, side)
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, inputs[::stride])), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_calls_with_inputs_of_different_sizes_count_by_their_rows():
    module = nn.Conv2d(2, 2, 2).double()
    optimizer = exact(module)
    small, large = randn(3, 2, 3, 3), randn(2, 2, 6, 5, seed=1)
    for inputs in (small, large):
        backward(module, inputs)
    optimizer.step()
    expected = covariance(rows(module, small), rows(module, large))
    assert error(inverse_of(optimizer, module), damped_inverse(expected, 0.1)) < 1e-12


def test_a_module_called_twice_in_a_forward_counts_both_calls():
    module = nn.Linear(4, 4).double()
    optimizer = exact(module)
    inputs = randn(5, 4)
    hidden = module(inputs)
    module(hidden).sum().backward()
    expected = covariance(rows(module, inputs), rows(module, hidden.detach()))
    optimizer.step()
    assert error(inverse_of(optimizer, module), damped_inverse(expected, 0.1)) < 1e-12


def test_modules_that_share_a_weight_share_its_statistics():
    first, second = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    second.weight, second.bias = first.weight, first.bias
    model = nn.ModuleList([first, second])
    optimizer = exact(model)
    one, two = randn(5, 4), randn(3, 4, seed=1)
    backward(first, one)
    backward(second, two)
    optimizer.step()
    expected = damped_inverse(covariance(rows(first, one), rows(second, two)), 0.1)
    assert error(inverse_of(optimizer, first, "0"), expected) < 1e-12
    assert torch.equal(optimizer.inverse("0"), optimizer.inverse("1"))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_recomputed_forward_counts_once(use_reentrant):
    module = nn.Linear(4, 4).double()
    optimizer = exact(module)
    once, twice = randn(5, 4), randn(7, 4, seed=1)
    for inputs in (once, twice):
        inputs = inputs.clone().requires_grad_()
        checkpoint(module, inputs, use_reentrant=use_reentrant).sum().backward()
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, once), rows(module, twice)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_a_layer_unused_in_a_step_keeps_its_statistics_and_factors():
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)]).double()
    optimizer = exact(model, inv_interval=4, stat_decay=0.5)
    expected = [Schedule(0.5, 1, 4, restarts=False) for _ in model]
    for step in range(10):
        optimizer.zero_grad()
        for index, layer in enumerate(model):
            inputs = randn(5, 4, seed=10 * step + index)
            used = index == 0 or step in (0, 2, 5, 7)
            if used:
                backward(layer, inputs)
            expected[index].update(*([rows(layer, inputs)] if used else []))
        optimizer.step()
        for index, layer in enumerate(model):
            inverse = inverse_of(optimizer, layer, str(index))
            assert error(inverse, expected[index].inverse(0.1)) < 1e-12


def test_a_layer_that_is_never_used_gets_the_plain_update():
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)]).double()
    optimizer = exact(model)
    for step in range(3):
        set_gradients(model, step)
        backward(model[0], randn(5, 4, seed=step))
        before, G = model[1].weight.detach().clone(), model[1].weight.grad
        optimizer.step()
        assert torch.equal(model[1].weight.detach(), torch.add(before, G, alpha=-0.1))
    assert torch.equal(optimizer.inverse("1"), torch.eye(5, dtype=torch.float64))
    assert optimizer.diagnostics()["1"]["refresh_age"] is None


@pytest.mark.parametrize("first", [1, 2, 3, 5, 6])
def test_a_layer_used_late_is_preconditioned_from_its_first_data(first):
    module = nn.Linear(4, 2).double()
    model = nn.ModuleList([nn.Linear(4, 2).double(), module])
    options = {"cov_interval": 2, "inv_interval": 6}
    optimizer = exact(model, stat_decay=0.5, **options)
    expected = Schedule(0.5, **options, restarts=False)
    for step in range(14):
        inputs = randn(5, 4, seed=step)
        backward(model[0], inputs)
        if step >= first:
            backward(module, inputs)
        expected.update(*([rows(module, inputs)] if step >= first else []))
        optimizer.step()
        optimizer.zero_grad()
        if step >= first + first % 2:
            inverse = inverse_of(optimizer, module, "1")
            assert error(inverse, expected.inverse(0.1)) < 1e-12


def test_a_gradient_of_none_leaves_the_parameter_and_takes_no_statistics():
    module = nn.Linear(4, 2).double()
    optimizer = exact(module)
    before = module.weight.detach().clone()
    backward(module, randn(5, 4))
    module.zero_grad()
    optimizer.step()
    assert torch.equal(module.weight.detach(), before)
    assert optimizer.diagnostics()[""]["refresh_age"] is None


def test_a_bias_without_gradient_counts_as_zero():
    module = nn.Linear(4, 2).double()
    optimizer = exact(module)
    before = {name: param.detach().clone() for name, param in module.named_parameters()}
    backward(module, randn(5, 4))
    module.bias.grad = None
    optimizer.step()
    G = torch.cat([module.weight.grad, torch.zeros(2, 1).double()], dim=1)
    moved = 0.1 * G @ optimizer.inverse("")
    assert error(before["weight"] - module.weight.detach(), moved[:, :4]) < 1e-12
    assert torch.equal(module.bias.detach(), before["bias"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_forwards_without_gradients_are_not_observed(mode):
    runs = []
    for extra in (False, True):
        model = two_layers().eval()
        optimizer = plain(model, inv_interval=2)
        for step in range(4):
            model(images(step)).sum().backward()
            if extra:
                with mode():
                    model(images(100 + step))
            optimizer.step()
            optimizer.zero_grad()
        runs.append(state_of(optimizer))
    assert same(*runs)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_an_empty_batch_counts_for_nothing(shape):
    module = nn.Linear(4, 2).double()
    optimizer = exact(module)
    backward(module, torch.zeros(shape, dtype=torch.float64))
    inputs = randn(5, 4)
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_statistics_of_a_skipped_step_are_dropped():
    runs = []
    for skip in (False, True):
        model = two_layers()
        optimizer = plain(model)
        if skip:
            model[1].eval()
            model(images(50)).sum().backward()
            model[1].train()
            optimizer.zero_grad()
        model(images(0)).sum().backward()
        optimizer.step()
        runs.append(state_of(optimizer))
    assert same(*runs)


def test_gradients_may_be_reset_between_forward_and_backward():
    module = nn.Linear(4, 2).double()
    optimizer = exact(module, stat_decay=0.0)
    for step in range(3):
        inputs = randn(5, 4, seed=step)
        loss = module(inputs).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
        assert error(inverse_of(optimizer, module), expected) < 1e-12


# --- values that are not finite --------------------------------------------------------------


def _keep_finite(model):
    for param in model.parameters():
        if param.grad is not None:
            param.grad.nan_to_num_(0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@every_sketch
def test_values_that_are_not_finite_leave_out_that_layers_step_alone(bad, sketch):
    runs = []
    for spoiled in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 2), nn.Conv2d(2, 2, 2)]).double()
        optimizer = plain(model, rank=3, sketch=sketch, inv_interval=3)
        for step in range(7):
            inputs = randn(5, 8, seed=step)
            optimizer.zero_grad()
            backward(model[0], inputs)
            if spoiled or step not in (2, 4):
                broken = inputs.clone()
                if step in (2, 4):
                    broken[3, 1] = bad
                backward(model[1], broken)
                backward(model[2], broken.reshape(5, 2, 2, 2))
            _keep_finite(model)
            optimizer.step()
        states = [dict(optimizer.state[layer.weight]) for layer in model]
        assert all(value.isfinite().all() for state in states for value in state.values())
        runs.append(states)
    for left, right in zip(*runs, strict=True):
        assert same(left, right)


def test_one_spoiled_group_of_a_convolution_leaves_the_others_statistics():
    module = nn.Conv2d(4, 4, 2, groups=2).double()
    optimizer = exact(module, inv_interval=3, stat_decay=0.5)
    batches = [randn(3, 4, 4, 4, seed=step) for step in range(4)]
    for step, inputs in enumerate(batches):
        spoiled = inputs.clone()
        if step == 2:
            spoiled[0, 3, 1, 1] = float("nan")
        backward(module, spoiled)
        _keep_finite(module)
        optimizer.step()
        optimizer.zero_grad()
    A = [covariance(rows(module, inputs)) for inputs in batches]
    expected = average(A, 0.5)
    expected[1] = (A[0] / 8 + A[1] / 4 + A[3])[1] / (1 / 8 + 1 / 4 + 1)
    assert error(optimizer.inverse(""), damped_inverse(expected, 0.1)) < 1e-12


def test_half_precision_inputs_that_overflow_when_squared_are_taken():
    module = nn.Linear(4, 2).half()
    optimizer = plain(module, rank=2, damping=1.0)
    outputs = module(torch.full((3, 4), 6e4, dtype=torch.float16))
    (1e-4 * outputs).sum().backward()
    optimizer.step()
    assert optimizer.diagnostics()[""]["refresh_age"] == 0
    assert optimizer.diagnostics()[""]["trace"].item() == pytest.approx(4 * 6e4**2, rel=1e-2)


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
    """The covariance gains a row and a column: the layer starts anew, the others go on."""
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
def test_an_interval_changed_within_a_window_starts_the_average_anew(sketch):
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
