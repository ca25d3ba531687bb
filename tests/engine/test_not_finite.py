"""Values that are not finite leave out their layer's step, and nothing else."""

import pytest
import torch
from torch import nn

from nysact.curvature import SKETCHES

from ..oracles import average, covariance, damped_inverse, error, randn, rows
from ..steps import (
    backward,
    exact,
    plain,
    same,
)

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


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
