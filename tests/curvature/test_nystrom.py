"""NysAct's curvature: its probes, its factors and their action."""

import pytest
import torch

from nysact import DenseMap
from nysact.curvature import SKETCHES, Nystrom, Shape

from ..oracles import damped_inverse, error, nystrom, randn

SHAPE = Shape(groups=2, dim=9, rank=4)
SEEDS = [11, 12, 13]
LEAD = (len(SEEDS), SHAPE.groups)

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)
both_tails = pytest.mark.parametrize("tail", [False, True])


def covariances(shape=SHAPE, rank=None):
    root = randn(len(SEEDS), shape.groups, shape.dim, rank or 2 * shape.dim)
    return root @ root.mT / root.shape[-1]


def draw(curvature, shape=SHAPE, seeds=SEEDS):
    return curvature.probes(shape, curvature.initial(shape, seeds), seeds)


def refreshed(curvature, A, shape=SHAPE):
    """Factors from exact covariances."""
    omega = draw(curvature, shape)
    sketch = A @ omega if shape.rank < shape.dim else A
    trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)
    return curvature.refresh({"sketch": sketch, "trace": trace}, omega)


def dense(curvature, factors, damping, shape=SHAPE, ready=(True, True, True)):
    eye = torch.eye(shape.dim, dtype=torch.float64).expand(*LEAD, -1, -1)
    return multiply(curvature, eye, factors, damping, torch.tensor(ready))


def multiply(curvature, gradient, factors, damping, ready):
    action = curvature.action(factors, damping, ready)
    product, bias = curvature.precondition(gradient, None, action)
    assert bias is None
    return product


# --- probes ----------------------------------------------------------------------------------


def test_columns_are_distinct_columns_of_the_identity():
    omega = draw(Nystrom("columns", tail=True))
    assert omega.shape == (*LEAD, SHAPE.dim, SHAPE.rank)
    assert torch.equal(omega.mT @ omega, torch.eye(SHAPE.rank).double().expand(*LEAD, -1, -1))
    assert set(omega.unique().tolist()) == {0.0, 1.0}


def test_every_column_is_drawn_about_equally_often():
    shape = Shape(groups=1, dim=5, rank=2)
    omega = draw(Nystrom("columns", tail=True), shape, seeds=range(2000))
    shares = omega.sum((0, 1, 3)) / 2000
    # Five standard deviations of a share of 0.4 over 2000 draws.
    assert (shares - 0.4).abs().max() < 0.055


def test_gaussian_probes_have_variance_one_over_d():
    shape = Shape(groups=2, dim=64, rank=8)
    omega = draw(Nystrom("gaussian", tail=True), shape, seeds=range(100))
    assert abs(omega.var() * shape.dim - 1) < 0.03
    assert abs(omega.mean()) < 0.003


def test_subspace_probes_are_orthonormal_and_then_the_current_basis():
    curvature = Nystrom("subspace", tail=True)
    first = draw(curvature)
    assert error(first.mT @ first, torch.eye(SHAPE.rank).double().expand(*LEAD, -1, -1)) < 1e-13
    factors, _ = refreshed(curvature, covariances())
    assert torch.equal(curvature.probes(SHAPE, factors, [1, 2, 3]), factors["basis"])


@every_sketch
def test_rank_of_the_whole_space_needs_no_probes_and_no_restart(sketch):
    shape = Shape(groups=1, dim=5, rank=5)
    curvature, inputs = Nystrom(sketch, tail=True), randn(7, 5)
    omega = draw(curvature, shape)
    assert omega.shape == (len(SEEDS), 0)
    measured = curvature.measure(DenseMap([inputs], bias=False), omega[0])
    assert error(measured["sketch"], (inputs.T @ inputs).unsqueeze(0)) < 1e-13
    assert not curvature.restarts(shape)
    assert curvature.restarts(SHAPE)


@every_sketch
def test_probes_are_repeatable_and_differ_by_seed_and_group(sketch):
    curvature = Nystrom(sketch, tail=True)
    omega = draw(curvature)
    assert torch.equal(omega, draw(curvature))
    assert not torch.equal(omega[0], omega[1])
    assert not torch.equal(omega[:, 0], omega[:, 1])
    # A layer's probes are its own seed's, whoever is drawn with it.
    assert torch.equal(omega[1:2], draw(curvature, seeds=SEEDS[1:2]))


@every_sketch
def test_drawing_leaves_the_global_random_state_alone(sketch):
    before = torch.get_rng_state()
    draw(Nystrom(sketch, tail=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_sketch
def test_probes_take_the_dtype_of_the_factors(sketch, dtype):
    curvature = Nystrom(sketch, tail=True)
    factors = {name: value.to(dtype) for name, value in curvature.initial(SHAPE, SEEDS).items()}
    assert curvature.probes(SHAPE, factors, SEEDS).dtype == dtype


# --- statistics ------------------------------------------------------------------------------


def test_statistics_are_sums_over_rows():
    inputs = [randn(6, SHAPE.dim - 1, seed=g) for g in range(SHAPE.groups)]
    linear_map = DenseMap(inputs, bias=True)
    rows = torch.stack([torch.cat([x, torch.ones(6, 1).double()], dim=1) for x in inputs])
    curvature = Nystrom("gaussian", tail=True)
    omega = draw(curvature)[0]
    measured = curvature.measure(linear_map, omega)
    assert measured.keys() == curvature.statistics(SHAPE).keys()
    for name, size in curvature.statistics(SHAPE).items():
        assert measured[name].shape == (SHAPE.groups, *size)
    assert error(measured["sketch"], rows.mT @ rows @ omega) < 1e-13
    assert error(measured["trace"], rows.square().sum((1, 2))) < 1e-13


# --- factors and their action ----------------------------------------------------------------


@every_sketch
@both_tails
def test_the_action_is_the_damped_inverse_of_nystrom_and_tail(sketch, tail):
    curvature, A = Nystrom(sketch, tail=tail), covariances()
    omega = draw(curvature)
    factors, succeeded = refreshed(curvature, A)
    assert succeeded.shape == LEAD
    assert succeeded.all()

    approximation = nystrom(A @ omega, omega)
    missed = (A - approximation).diagonal(dim1=-2, dim2=-1).sum(-1) / (SHAPE.dim - SHAPE.rank)
    projector = torch.linalg.qr(A @ omega).Q
    projector = projector @ projector.mT
    eye = torch.eye(SHAPE.dim, dtype=torch.float64)
    complement = missed[..., None, None] * (eye - projector)
    expected = damped_inverse(approximation + tail * complement, 0.7)
    assert error(dense(curvature, factors, 0.7), expected) < 1e-10


@every_sketch
@both_tails
def test_low_rank_covariances_are_inverted_exactly(sketch, tail):
    curvature, A = Nystrom(sketch, tail=tail), covariances(rank=3)
    factors, _ = refreshed(curvature, A)
    assert error(dense(curvature, factors, 0.1), damped_inverse(A, 0.1)) < 1e-10


@every_sketch
@both_tails
def test_full_rank_is_the_exact_inverse(sketch, tail):
    shape = Shape(groups=2, dim=6, rank=6)
    curvature, A = Nystrom(sketch, tail=tail), covariances(shape)
    factors, succeeded = refreshed(curvature, A, shape)
    assert succeeded.all()
    assert error(dense(curvature, factors, 0.01, shape), damped_inverse(A, 0.01)) < 1e-12


@every_sketch
@pytest.mark.parametrize("rank", [4, 9])
def test_layers_without_factors_keep_their_gradient(sketch, rank):
    shape = Shape(groups=2, dim=9, rank=rank)
    curvature = Nystrom(sketch, tail=True)
    G = randn(*LEAD, 3, 9)
    kept = multiply(curvature, G, curvature.initial(shape, SEEDS), 0.5, torch.zeros(3).bool())
    assert torch.equal(kept, G)
    factors, _ = refreshed(curvature, covariances(), shape)
    mixed = multiply(curvature, G, factors, 0.5, torch.tensor([True, False, True]))
    assert torch.equal(mixed[1], G[1])
    assert not torch.equal(mixed[0], G[0])


@every_sketch
def test_failure_is_told_for_each_layer_and_group(sketch):
    curvature, A = Nystrom(sketch, tail=True), covariances()
    A[1, 0] = float("nan")
    factors, succeeded = refreshed(curvature, A)
    assert succeeded.tolist() == [[True, True], [False, True], [True, True]]
    for name in ("basis", "root"):
        assert factors[name][succeeded].isfinite().all()


def test_repeated_subspace_refreshes_converge_to_the_top_eigenspace():
    curvature, A = Nystrom("subspace", tail=False), covariances()
    values = torch.linalg.eigvalsh(A)[..., -SHAPE.rank :]
    factors = curvature.initial(SHAPE, SEEDS)
    trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)
    for _ in range(200):
        omega = curvature.probes(SHAPE, factors, SEEDS)
        factors, _ = curvature.refresh({"sketch": A @ omega, "trace": trace}, omega)
    found = [
        curvature.summary({name: value[layer] for name, value in factors.items()})["eigenvalues"]
        for layer in range(len(SEEDS))
    ]
    assert error(torch.stack(found), values) < 1e-8


@every_sketch
@pytest.mark.parametrize("rank", [4, 9])
def test_a_bias_apart_is_the_last_column_of_the_gradient(sketch, rank):
    shape = Shape(groups=2, dim=9, rank=rank)
    curvature, G = Nystrom(sketch, tail=True), randn(*LEAD, 3, 9)
    factors, _ = refreshed(curvature, covariances(shape), shape)
    action = curvature.action(factors, 0.5, torch.tensor([True, False, True]))
    weight, bias = curvature.precondition(G[..., :-1], G[..., -1], action)
    whole, _ = curvature.precondition(G, None, action)
    assert error(torch.cat([weight, bias.unsqueeze(-1)], dim=-1), whole) < 1e-14


@both_tails
def test_summary_describes_one_layer(tail):
    curvature, A = Nystrom("gaussian", tail=tail), covariances()
    factors, _ = refreshed(curvature, A)
    summary = curvature.summary({name: value[1] for name, value in factors.items()})
    trace = A[1].diagonal(dim1=-2, dim2=-1).sum(-1)
    eigenvalues = summary["eigenvalues"]
    assert eigenvalues.shape == (SHAPE.groups, SHAPE.rank)
    assert error(summary["trace"], trace) < 1e-12
    assert error(summary["trace_captured"], eigenvalues.sum(-1) / trace) < 1e-12
    missed = (trace - eigenvalues.sum(-1)) / (SHAPE.dim - SHAPE.rank)
    assert error(summary["tail"], missed * tail) < 1e-12
