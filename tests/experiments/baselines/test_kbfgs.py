import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact.experiments.baselines import training_step
from nysact.experiments.baselines.kbfgs import KBFGS, Pairs, bfgs_update, double_damping, is_safe
from tests.experiments.baselines.problems import Problem, close, logistic, network


def vectors(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def safe_pairs(count, n):
    """Pairs of a quadratic with a positive definite Hessian."""
    root = vectors(n, n, seed=1)
    s = vectors(count, n)
    return s, s @ (root @ root.T + torch.eye(n).double())


def dense_bfgs(inverse, s, y):
    rho = 1 / (s @ y)
    left = torch.eye(len(s)).double() - rho * torch.outer(s, y)
    return left @ inverse @ left.T + rho * torch.outer(s, s)


def test_bfgs_update_is_the_dense_formula_and_maps_y_to_s():
    (s,), (y,) = safe_pairs(1, 6)
    root = vectors(6, 6, seed=4)
    inverse = root @ root.T
    updated = bfgs_update(inverse, s, y)
    assert close(updated, dense_bfgs(inverse, s, y))
    assert close(updated @ y, s)
    assert torch.linalg.eigvalsh(updated)[0] > 0


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_pairs_are_the_dense_updates_one_after_the_other(count):
    s, y = safe_pairs(count, 5)
    expected = torch.eye(5).double()
    for step, change in zip(s, y, strict=True):
        expected = dense_bfgs(expected, step, change)
    other = vectors(5, 3, seed=2)
    assert close(Pairs(s, y).inverse_product(other), expected @ other)
    assert close(Pairs(s, y).inverse_product(other[:, 0]), expected @ other[:, 0])


def test_pairs_forget_the_oldest():
    s, y = safe_pairs(4, 5)
    pairs = Pairs(s[:0], y[:0])
    for step, change in zip(s, y, strict=True):
        pairs = pairs.append(step, change, memory=3)
    assert torch.equal(pairs.s, s[1:])
    assert torch.equal(pairs.y, y[1:])


def test_good_pair_is_not_damped():
    s = y = vectors(5)
    damped = double_damping(s, y, y, damping=0.5)
    assert torch.equal(damped[0], s)
    assert torch.equal(damped[1], y)


@pytest.mark.parametrize("seed", range(8))
def test_damped_pair_keeps_curvature_between_its_bounds(seed):
    s, y = vectors(5, seed=seed), vectors(5, seed=seed + 100)
    root = vectors(5, 5, seed=seed + 200)
    inverse = root @ root.T
    s, damped = double_damping(s, y, inverse @ y, damping=0.3)
    # Powell's damping bounds s^T y by y^T H y, for the y before it is damped itself.
    assert s @ y >= 0.2 * (y @ inverse @ y) * (1 - 1e-12)
    assert s @ damped >= 0.3 * (s @ s) * (1 - 1e-12)


def test_pair_without_curvature_is_not_safe():
    s = vectors(4)
    assert is_safe(s, s, s)
    assert not is_safe(s, -s, s)
    assert not is_safe(s, 1e-6 * s, s)
    assert not is_safe(torch.zeros(4), torch.zeros(4), s)


def one_layer():
    """A linear layer whose loss is quadratic in its outputs."""
    problem = logistic()
    return Problem(
        problem.model, lambda z, t: F.mse_loss(z, F.one_hot(t).double()), problem.inputs,
        problem.targets,
    )  # fmt: skip


def test_first_step_inverts_the_damped_covariance_in_full():
    problem = one_layer()
    module = problem.model
    nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(2))
    rows = F.pad(problem.inputs, (0, 1), value=1.0)
    covariance = rows.T @ rows / len(rows)
    optimizer = KBFGS(module, lr=0.5, momentum=0.9, weight_decay=0.0, damping=0.09)
    loss = problem.loss_function(module(problem.inputs), problem.targets)
    weight, bias = torch.autograd.grad(loss, [module.weight, module.bias])
    before = torch.cat([module.weight, module.bias[:, None]], dim=1).detach()
    training_step(module, optimizer, *problem.batch()[1:])
    after = torch.cat([module.weight, module.bias[:, None]], dim=1).detach()
    gradient = 0.1 * torch.cat([weight, bias[:, None]], dim=1)
    damped = covariance + 0.3 * torch.eye(6).double()
    assert close((before - after) / 0.5, gradient @ torch.linalg.inv(damped))
    state = optimizer.state[module.weight]
    assert close(state["covariance"], covariance)
    # Of an exact inverse, BFGS with y = A s changes nothing.
    assert close(state["input_inverse"], torch.linalg.inv(damped))


def test_input_factor_maps_the_damped_covariance_of_its_pair_back():
    problem = one_layer()
    optimizer = KBFGS(problem.model, lr=0.1, damping=0.09, stat_decay=0.5)
    state = optimizer.state[problem.model.weight]
    training_step(problem.model, optimizer, *problem.batch()[1:])
    problem.inputs = 2 * problem.inputs
    previous = state["input_inverse"]
    training_step(problem.model, optimizer, *problem.batch()[1:])
    row = F.pad(problem.inputs, (0, 1), value=1.0).mean(0)
    s = previous @ row
    y = (state["covariance"] + 0.3 * torch.eye(6).double()) @ s
    assert close(state["input_inverse"], dense_bfgs(previous, s, y))


def test_output_pair_is_the_change_of_means_over_the_step():
    problem = one_layer()
    optimizer = KBFGS(problem.model, lr=0.1, damping=0.01, stat_decay=0.9)
    state = optimizer.state[problem.model.weight]
    outputs = [problem.model(problem.inputs)]
    training_step(problem.model, optimizer, *problem.batch()[1:])
    outputs.append(problem.model(problem.inputs))
    s = (outputs[1] - outputs[0]).mean(0).detach()
    assert close(state["average_s"], 0.1 * s)
    # The mean over samples and 3 outputs of squares: a Hessian of 2/3 a sample.
    assert close(state["average_y"], 0.1 * s * 2 / 3)
    assert close(Pairs(state["s"], state["y"]).inverse_product(state["y"][-1]), state["s"][-1])


def test_convolution_sums_the_covariance_and_averages_outputs_over_positions():
    module = nn.Conv2d(2, 3, 2, stride=2, bias=False).double()
    inputs = vectors(4, 2, 4, 4)
    problem = Problem(module, lambda z, t: (z.square().sum((1, 2, 3))).mean(), inputs, None)
    optimizer = KBFGS(module, lr=0.01, damping=0.01)
    state = optimizer.state[module.weight]
    first = module(inputs).detach()
    training_step(module, optimizer, *problem.batch()[1:])
    second = module(inputs).detach()
    patches = F.unfold(inputs, 2, stride=2).transpose(1, 2).flatten(0, 1)
    assert close(state["covariance"], patches.T @ patches / 4)
    s = (second - first).mean((0, 2, 3))
    assert close(state["average_s"], 0.1 * s)
    assert close(state["average_y"], 0.1 * 2 * s)


def test_step_without_closure_says_what_to_do():
    optimizer = KBFGS(logistic().model)
    with pytest.raises(RuntimeError, match="pass a closure"):
        optimizer.step()


def test_forwards_outside_the_step_are_not_observed():
    problem = network()
    optimizer = KBFGS(problem.model)
    problem.loss_function(problem.model(problem.inputs), problem.targets).backward()
    assert not optimizer.state


@pytest.mark.parametrize("settings", [{"damping": 0.0}, {"memory": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        KBFGS(network().model, **settings)
