"""Runs of NysAct on a problem, and the bounds that they must keep."""

import pytest
import torch
from benchmarks.theory.bounds import (
    Spectrum,
    error_bound,
    learning_rate,
    relative_smoothness,
    theorem,
)
from benchmarks.theory.descent import Descent, Sketch, rehearse, squared_norms
from benchmarks.theory.problem import least_squares, sigmoid_squares
from hypothesis import given
from hypothesis import strategies as st

from .test_problem import made

SKETCH = Sketch(rank=2, damping=0.3, interval=5)


@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([1e-3, 0.1, 10.0]))
def test_error_bounds_the_smoothness_relative_to_the_preconditioner(seed, rank, damping):
    """P^(1/2) A P^(1/2) <= max(1, error / damping) I for any approximation without negatives."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    factor = torch.randn(6, rank, generator=generator, dtype=torch.float64)
    exact, approximation = root @ root.mT, factor @ factor.mT
    values, vectors = torch.linalg.eigh(approximation)
    half = vectors * (values.clamp(min=0) + damping).rsqrt() @ vectors.mT
    error = float(torch.linalg.matrix_norm(exact - approximation, 2))
    relative = float(torch.linalg.eigvalsh(half @ exact @ half)[-1])
    bound = relative_smoothness(1.0, Spectrum(0.0, 0.0, error, damping))
    assert relative <= bound * (1 + 1e-9)


@pytest.mark.parametrize("sketch", ["columns", "gaussian", "subspace"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_run_has_the_preconditioners_of_its_rehearsal(sketch, batch_size):
    problem = made(least_squares)
    settings = Sketch(2, 0.3, sketch, interval=3)
    spectrum = rehearse(problem, settings, 9)
    descent = Descent(problem, settings, 0.01, batch_size)
    lows, highs = [], []
    for step in range(9):
        descent.step()
        if step % 3 == 0:
            values = torch.linalg.eigvalsh(descent.preconditioner())
            lows.append(float(values[0]))
            highs.append(float(values[-1]))
    assert (min(lows), max(highs)) == pytest.approx((spectrum.low, spectrum.high), rel=1e-12)
    assert spectrum.high <= 1 / 0.3 * (1 + 1e-9)


def test_full_rank_has_no_error():
    problem = made(least_squares)
    spectrum = rehearse(problem, Sketch(rank=5, damping=0.1), 1)
    largest = float(torch.linalg.eigvalsh(problem.covariance)[-1])
    assert spectrum.error < 1e-10
    assert spectrum.low == pytest.approx(1 / (largest + 0.1))


def test_a_step_is_the_preconditioned_gradient_step():
    problem = made(sigmoid_squares)
    descent = Descent(problem, SKETCH, 0.5)
    gradient = problem.gradient(descent.weight)
    before = descent.weight.clone()
    descent.step()
    expected = before - 0.5 * gradient @ descent.preconditioner()
    torch.testing.assert_close(descent.weight, expected)


def test_drawn_gradients_are_unbiased():
    problem = made(least_squares)
    weight = torch.zeros(3, 5, dtype=torch.float64)
    mean, count = torch.zeros_like(weight), 1000
    descent = Descent(problem, SKETCH, 0.0, batch_size=2)
    for _ in range(count):
        descent.step()
        gradient = descent.model.weight.grad
        mean += gradient / count
    error = float((mean - problem.gradient(weight)).norm())
    # Four standard deviations of the mean.
    assert error < 4 * (problem.variance(weight, 2) / count) ** 0.5


@pytest.mark.parametrize("make", [least_squares, sigmoid_squares])
@pytest.mark.parametrize("tail", [False, True])
def test_means_stay_below_the_theorem(make, tail):
    problem = made(make)
    settings = Sketch(2, 0.3, tail=tail, interval=5)
    spectrum = rehearse(problem, settings, 100)
    rate = learning_rate(problem.smoothness, spectrum)
    total = 0.0
    for step, (norm, _) in enumerate(squared_norms(Descent(problem, settings, rate), 100)):
        total += norm
        bound = theorem(problem.gap, rate, step + 1, problem.smoothness, 0.0, spectrum)
        assert total / (step + 1) <= bound


@pytest.mark.parametrize("make", [least_squares, sigmoid_squares])
@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("share", [1, 0.1])
def test_means_stay_below_the_bound_of_the_error(make, rank, share):
    problem = made(make)
    settings = Sketch(rank, 1e-2, tail=False, interval=5)
    spectrum = rehearse(problem, settings, 100)
    rate = share / relative_smoothness(problem.curvature, spectrum)
    norms = [norm for norm, _ in squared_norms(Descent(problem, settings, rate), 100)]
    bound = error_bound(problem.gap, rate, 100, spectrum)
    assert sum(norms) / 100 <= bound
