"""Problems whose constants are known: gradients, smoothness, variance, minimum."""

import itertools

import pytest
import torch
from benchmarks.theory.problem import (
    SIGMOID_CURVATURE,
    digits,
    least_squares,
    sigmoid_squares,
)
from hypothesis import given
from hypothesis import strategies as st

PROBLEMS = [least_squares, sigmoid_squares]


def made(make, seed=0, rows=20, dim=5, outputs=3):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(outputs, (rows,), generator=generator)
    return make(inputs, torch.nn.functional.one_hot(labels, outputs).double())


def weights(seed, count, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, 3, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("make", PROBLEMS)
def test_gradient_is_that_of_the_loss(make):
    problem = made(make)
    weight = weights(1, 1)[0].requires_grad_()
    loss = problem.losses(problem.inputs @ weight.mT, problem.targets).mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(problem.gradient(weight.detach()), gradient)
    assert problem.loss(weight.detach()) == pytest.approx(loss.item())


@pytest.mark.parametrize("make", PROBLEMS)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 10.0]))
def test_gradient_is_lipschitz_with_the_stated_constant(make, seed, scale):
    problem = made(make, seed)
    first, second = weights(seed + 1, 2, scale)
    change = problem.gradient(first) - problem.gradient(second)
    assert change.norm() <= problem.smoothness * (first - second).norm() * (1 + 1e-12)


def test_constant_of_least_squares_is_attained():
    problem = made(least_squares)
    direction = torch.linalg.eigh(problem.covariance).eigenvectors[:, -1]
    step = torch.outer(torch.eye(3, dtype=torch.float64)[0], direction)
    zero = torch.zeros_like(step)
    change = problem.gradient(step) - problem.gradient(zero)
    assert float(change.norm()) == pytest.approx(problem.smoothness)


def test_curvature_of_the_sigmoid_is_the_largest_there_is():
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    s = z.sigmoid()
    for y in (0, 1):
        second = (s * (1 - s)) ** 2 + (s - y) * s * (1 - s) * (1 - 2 * s)
        assert float(second.abs().max()) == pytest.approx(SIGMOID_CURVATURE, rel=1e-6)


@pytest.mark.parametrize("make", PROBLEMS)
def test_variance_is_that_of_all_possible_batches(make):
    problem = made(make, rows=4)
    (weight,) = weights(2, 1)
    exact = problem.gradient(weight)
    squares = []
    for drawn in itertools.product(range(4), repeat=2):
        part = type(problem)(
            problem.name,
            problem.inputs[list(drawn)],
            problem.targets[list(drawn)],
            problem.losses,
            problem.slopes,
            problem.curvature,
            problem.minimum,
        )
        squares.append(float((part.gradient(weight) - exact).square().sum()))
    assert problem.variance(weight, 2) == pytest.approx(sum(squares) / len(squares))


def test_minimum_is_reached_by_the_solution_and_nowhere_undercut():
    problem = made(least_squares)
    solution = torch.linalg.lstsq(problem.inputs, problem.targets).solution.mT
    assert problem.loss(solution) == pytest.approx(problem.minimum)
    assert all(problem.loss(weight) >= problem.minimum for weight in weights(3, 20))


def test_digits_are_scaled_to_a_largest_eigenvalue_of_one():
    rows, targets = digits()
    assert rows.shape == (1797, 64)
    assert float(torch.linalg.eigvalsh(least_squares(rows, targets).covariance)[-1]) == (
        pytest.approx(1.0)
    )
    assert torch.equal(targets.sum(1), torch.ones(1797, dtype=torch.float64))
