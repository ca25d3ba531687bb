"""What holds of every curvature: its damping, its mean eigenvalue, layers that aren't ready."""

import pytest
import torch

from nysact import DenseMap
from nysact.curvature import (
    SKETCHES,
    Exact,
    Kronecker,
    KroneckerVectors,
    Nystrom,
    SampledKronecker,
    Shape,
)

from ..oracles import error, randn

SAMPLES, LAYERS, KEPT = 12, 3, 4
SHAPE = Shape(groups=2, dim=6, rank=3, out=4)
FULL = Shape(groups=2, dim=6, rank=6, out=4)
LEAD = (LAYERS, SHAPE.groups)
INPUTS = randn(*LEAD, SAMPLES, SHAPE.dim - 1) * torch.linspace(0.2, 2, LAYERS)[:, None, None, None]
GRADIENTS = randn(*LEAD, SAMPLES, SHAPE.out, seed=1) / SAMPLES

CASES = {sketch: (Nystrom(sketch, tail=True), SHAPE) for sketch in SKETCHES} | {
    "no tail": (Nystrom("gaussian", tail=False), SHAPE),
    "full rank": (Nystrom("gaussian", tail=True), FULL),
    "foof": (Exact(), SHAPE),
    "kfac": (Kronecker(lambda: 1.0), SHAPE),
    "eva": (KroneckerVectors(lambda: 1.0), SHAPE),
    "skfac": (SampledKronecker(KEPT, lambda: 1.0), SHAPE),
}
every_curvature = pytest.mark.parametrize(("curvature", "shape"), CASES.values(), ids=CASES)
READY = torch.ones(LAYERS, dtype=torch.bool)


def rows():
    return torch.cat([INPUTS, INPUTS.new_ones(*LEAD, SAMPLES, 1)], dim=-1)


def factors_of(curvature, shape):
    """The factors of one batch, through every method on the way."""
    probes = curvature.probes(shape, curvature.initial(shape, range(LAYERS)), range(LAYERS))
    sums = []
    for layer in range(LAYERS):
        linear_map = DenseMap(list(INPUTS[layer]), bias=True)
        measured = curvature.measure(linear_map, probes[layer])
        if curvature.observes_outputs:
            measured |= curvature.measure_outputs(GRADIENTS[layer], SAMPLES, 0)
        sums.append(measured)
    stacked = {name: torch.stack([one[name] for one in sums]) for name in sums[0]}
    count = torch.full((LAYERS, 1), float(SAMPLES), dtype=torch.float64)
    totals = curvature.totals(stacked, count)
    assert totals.keys() == curvature.statistics(shape).keys()
    for name, size in curvature.statistics(shape).items():
        assert totals[name].shape == (*LEAD, *size)
    factors, usable = curvature.refresh(curvature.means(totals, count.expand(LEAD)), probes)
    assert usable.shape == LEAD
    assert usable.all()
    initial = curvature.initial(shape, range(LAYERS))
    assert {n: v.shape for n, v in factors.items()} == {n: v.shape for n, v in initial.items()}
    return factors


def multiply(curvature, factors, damping, gradient, ready=READY):
    weight, bias = curvature.precondition(
        gradient[..., :-1], gradient[..., -1], curvature.action(factors, damping, ready)
    )
    return torch.cat([weight, bias.unsqueeze(-1)], dim=-1)


@every_curvature
def test_a_damping_per_layer_and_group_damps_each_with_its_own(curvature, shape):
    factors, gradient = factors_of(curvature, shape), randn(*LEAD, shape.out, shape.dim, seed=2)
    dampings = torch.linspace(0.05, 2, 6, dtype=torch.float64).reshape(LEAD)
    actual = multiply(curvature, factors, dampings, gradient)
    for layer in range(LAYERS):
        for group in range(shape.groups):
            alone = multiply(curvature, factors, float(dampings[layer, group]), gradient)
            assert error(actual[layer, group], alone[layer, group]) < 1e-12


@pytest.mark.parametrize("name", [name for name in CASES if name != "eva"])
def test_the_inverse_of_a_layer_takes_a_damping_per_group(name):
    curvature, shape = CASES[name]
    factors = {key: value[:1] for key, value in factors_of(curvature, shape).items()}
    dampings = torch.tensor([[0.1, 0.7]], dtype=torch.float64)
    actual = curvature.inverse(factors, dampings, READY[:1], shape.dim)
    for group in range(shape.groups):
        alone = curvature.inverse(factors, float(dampings[0, group]), READY[:1], shape.dim)
        assert error(actual[group], alone[group]) < 1e-12


@every_curvature
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_damping_in_the_dtype_of_the_factors_keeps_that_of_the_gradient(curvature, shape, dtype):
    factors = {name: value.to(dtype) for name, value in factors_of(curvature, shape).items()}
    damping = 0.1 * curvature.mean_eigenvalue(factors, shape.dim)
    gradient = randn(*LEAD, shape.out, shape.dim, seed=2, dtype=dtype)
    product = multiply(curvature, factors, damping, gradient)
    assert product.dtype == dtype
    assert product.isfinite().all()


@every_curvature
def test_a_layer_that_is_not_ready_keeps_its_gradient_whatever_the_damping(curvature, shape):
    factors, gradient = factors_of(curvature, shape), randn(*LEAD, shape.out, shape.dim, seed=2)
    ready = torch.tensor([True, False, True])
    for damping in (0.1, torch.full(LEAD, 0.1, dtype=torch.float64)):
        product = multiply(curvature, factors, damping, gradient, ready)
        assert torch.equal(product[1], gradient[1])
        assert not torch.equal(product[0], gradient[0])


def mean_eigenvalues(name):
    """The trace of the curvature over its dimension, written out; that of both sides' product."""
    mean_row, mean_gradient = rows().mean(2), GRADIENTS.sum(2)
    if name == "eva":
        return mean_row.square().sum(-1) * mean_gradient.square().sum(-1) / SHAPE.dim
    kept = KEPT if name == "skfac" else SAMPLES
    inputs = rows()[:, :, :kept].square().sum((-2, -1)) / kept / SHAPE.dim
    # A sample's own gradient is SAMPLES times what the mean loss gives.
    outputs = (SAMPLES * GRADIENTS[:, :, :kept]).square().sum((-2, -1)) / kept / SHAPE.out
    return inputs * outputs if name in ("kfac", "skfac") else inputs


@pytest.mark.parametrize("name", CASES)
def test_the_mean_eigenvalue_is_the_trace_over_the_dimension(name):
    curvature, shape = CASES[name]
    actual = curvature.mean_eigenvalue(factors_of(curvature, shape), shape.dim)
    assert actual.shape == LEAD
    assert error(actual, mean_eigenvalues(name)) < 1e-12


@every_curvature
def test_the_mean_eigenvalue_of_layers_without_data_is_zero(curvature, shape):
    initial = curvature.initial(shape, range(LAYERS))
    assert not curvature.mean_eigenvalue(initial, shape.dim).any()
