"""The factorisation of a sketch and its action, against dense linear algebra."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nysact.curvature.linalg import (
    apply_low_rank,
    covariance_eigenpairs,
    covariance_factors,
    damped_core,
    gram_eigenpairs,
    nystrom_factors,
)

from ..oracles import error, nystrom, randn


def psd(*shape, rank, seed=0, scale=1.0):
    """Positive semi-definite matrices of a given rank, ``shape[-1]`` a side."""
    root = randn(*shape, rank, seed=seed)
    return scale * root @ root.mT / rank


def orthonormal(*shape, seed=0):
    return torch.linalg.qr(randn(*shape, seed=seed)).Q


def rebuild(basis, eigenvalues):
    return basis * eigenvalues.unsqueeze(-2) @ basis.mT


def nystrom_eigenpairs(sketch, probes):
    """The approximation that the factors stand for, by its eigenpairs."""
    basis, root, shift, succeeded = nystrom_factors(sketch, probes)
    rotation, values, _ = torch.linalg.svd(root)
    eigenvalues = values.square() - shift.unsqueeze(-1)
    return (basis @ rotation).flip(-1), eigenvalues.flip(-1), succeeded


PROBES = {
    "gaussian": lambda d, r: randn(d, r, seed=7) / d**0.5,
    "columns": lambda d, r: torch.eye(d, dtype=torch.float64)[:, 1 : r + 1],
    "orthonormal": lambda d, r: orthonormal(d, r, seed=7),
}
every_probe = pytest.mark.parametrize("probes", PROBES.values(), ids=PROBES)


@every_probe
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize(("rank", "r"), [(1, 4), (3, 4), (4, 4)])
def test_a_matrix_of_no_greater_rank_is_found_exactly(probes, rank, r, scale):
    A = psd(12, rank=rank, scale=scale)
    omega = probes(12, r)
    basis, eigenvalues, succeeded = nystrom_eigenpairs(A @ omega, omega)
    assert succeeded
    assert error(rebuild(basis, eigenvalues), A) < 1e-9
    true = torch.linalg.eigvalsh(A)[-r:].clamp(min=0)
    assert error(eigenvalues, true) < 1e-9
    found = basis[:, -rank:]
    assert error(A @ found, found * eigenvalues[-rank:]) < 1e-8


@every_probe
def test_a_greater_rank_gives_the_nystrom_approximation(probes):
    A, omega = psd(12, rank=12), probes(12, 5)
    basis, eigenvalues, succeeded = nystrom_eigenpairs(A @ omega, omega)
    assert succeeded
    assert error(rebuild(basis, eigenvalues), nystrom(A @ omega, omega)) < 1e-10
    # The approximation acts on the probes as the matrix itself does.
    assert error(rebuild(basis, eigenvalues) @ omega, A @ omega) < 1e-10


def test_probes_that_span_the_top_eigenspace_give_the_best_approximation():
    A = psd(10, rank=10)
    values, vectors = torch.linalg.eigh(A)
    basis, eigenvalues, _ = nystrom_eigenpairs(A @ vectors[:, -3:], vectors[:, -3:])
    assert error(eigenvalues, values[-3:]) < 1e-12
    assert error(rebuild(basis, eigenvalues), rebuild(vectors[:, -3:], values[-3:])) < 1e-12


@given(
    d=st.integers(2, 12),
    rank=st.integers(1, 12),
    r=st.integers(1, 11),
    columns=st.booleans(),
    decades=st.floats(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_approximation_lies_between_nothing_and_the_matrix(d, rank, r, columns, decades, seed):
    r = min(r, d - 1)
    scales = torch.logspace(0, -decades, d, dtype=torch.float64)
    A = psd(d, rank=rank, seed=seed) * scales * scales[:, None]
    omega = (
        torch.eye(d, dtype=torch.float64)[:, :r] if columns else orthonormal(d, r, seed=seed ^ 1)
    )
    basis, eigenvalues, succeeded = nystrom_eigenpairs(A @ omega, omega)
    assert succeeded
    size = torch.linalg.matrix_norm(A, 2)
    assert torch.linalg.eigvalsh(A - rebuild(basis, eigenvalues)).min() > -1e-10 * size
    assert eigenvalues.min() >= -1e-14 * size
    assert eigenvalues.sum() <= A.trace() + 1e-10 * size
    assert torch.equal(eigenvalues, eigenvalues.sort().values)
    assert error(basis.mT @ basis, torch.eye(r, dtype=torch.float64)) < 1e-12


def test_the_shift_leaves_no_trace_in_the_eigenvalues():
    # In float32 the shift is about 1e-6 here; the probes see three directions that are empty.
    A = torch.zeros(9, 9)
    A[2, 2] = 3.0
    omega = torch.eye(9)[:, 1:5]
    _, eigenvalues, _ = nystrom_eigenpairs(A @ omega, omega)
    assert error(eigenvalues[-1:], torch.tensor([3.0])) < 1e-7
    assert eigenvalues[:-1].max() < 1e-12


def test_float32_rank_deficient_sketch_succeeds_and_comes_close():
    A, omega = psd(50, rank=3), orthonormal(50, 10)
    sketch = (A @ omega).float()
    basis, eigenvalues, succeeded = nystrom_eigenpairs(sketch, omega.float())
    assert succeeded
    assert basis.dtype == eigenvalues.dtype == torch.float32
    assert error(rebuild(basis, eigenvalues).double(), A) < 1e-4


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_extreme_scales_succeed(scale):
    A, omega = psd(20, rank=4, scale=scale), orthonormal(20, 6)
    basis, eigenvalues, succeeded = nystrom_eigenpairs((A @ omega).float(), omega.float())
    assert succeeded
    assert error(rebuild(basis.double(), eigenvalues.double()), A) < 1e-4


def test_a_sketch_without_digits_counts_as_nothing():
    omega = orthonormal(20, 6).float()
    sketch = (psd(20, rank=4, scale=1e-43).float() @ omega).float()
    assert sketch.any()
    basis, eigenvalues, succeeded = nystrom_eigenpairs(sketch, omega)
    assert succeeded
    assert not eigenvalues.any()
    assert error(basis.mT @ basis, torch.eye(6)) < 1e-6


def test_repeated_columns_of_the_probes_do_no_harm():
    A = psd(8, rank=2)
    omega = randn(8, 4)
    omega[:, 3] = omega[:, 0]
    basis, eigenvalues, succeeded = nystrom_eigenpairs(A @ omega, omega)
    assert succeeded
    assert error(rebuild(basis, eigenvalues), A) < 1e-9


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_sketch_that_is_not_finite_fails_alone(bad):
    A, omega = psd(3, 8, rank=3), randn(3, 8, 4)
    sketch = A @ omega
    good = nystrom_eigenpairs(sketch, omega)
    sketch[1, 2, 3] = bad
    basis, eigenvalues, succeeded = nystrom_eigenpairs(sketch, omega)
    assert succeeded.tolist() == [True, False, True]
    for i in (0, 2):
        assert torch.equal(basis[i], good[0][i])
        assert torch.equal(eigenvalues[i], good[1][i])


def test_a_sketch_of_an_indefinite_matrix_fails():
    omega = orthonormal(6, 2)
    _, _, succeeded = nystrom_eigenpairs(-omega, omega)
    assert not succeeded


@every_probe
def test_a_sketch_of_nothing_gives_null_directions_in_the_range_of_the_probes(probes):
    omega = probes(12, 4)
    basis, eigenvalues, succeeded = nystrom_eigenpairs(torch.zeros_like(omega), omega)
    assert succeeded
    assert not eigenvalues.any()
    assert error(basis.mT @ basis, torch.eye(4, dtype=torch.float64)) < 1e-12
    assert error(basis @ (basis.mT @ omega), omega) < 1e-12


def test_batches_are_computed_as_single_matrices_are():
    A, omega = psd(2, 3, 9, rank=9), randn(2, 3, 9, 4)
    basis, eigenvalues, succeeded = nystrom_eigenpairs(A @ omega, omega)
    assert succeeded.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            b, e, _ = nystrom_eigenpairs(A[i, j] @ omega[i, j], omega[i, j])
            assert error(rebuild(basis[i, j], eigenvalues[i, j]), rebuild(b, e)) < 1e-12


def test_eigenpairs_of_a_covariance_known_in_full():
    A = psd(2, 7, rank=7)
    basis, eigenvalues, succeeded = covariance_eigenpairs(A)
    assert succeeded.all()
    assert error(rebuild(basis, eigenvalues), A) < 1e-13
    assert error(eigenvalues, torch.linalg.eigvalsh(A)) < 1e-13


def test_covariance_of_low_rank_has_no_negative_eigenvalue():
    _, eigenvalues, succeeded = covariance_eigenpairs(psd(7, rank=2))
    assert succeeded
    assert eigenvalues.min() >= 0


def test_a_covariance_that_is_not_finite_fails_alone():
    A = psd(2, 5, rank=5)
    A[0, 1, 1] = float("nan")
    basis, eigenvalues, succeeded = covariance_eigenpairs(A)
    assert succeeded.tolist() == [False, True]
    assert basis.isfinite().all()
    assert eigenvalues.isfinite().all()


@pytest.mark.parametrize("rank", [2, 5, 7])
def test_factors_of_a_covariance_known_in_full(rank):
    A = psd(2, 7, rank=rank)
    basis, root, shift, succeeded = covariance_factors(A)
    assert succeeded.all()
    assert torch.equal(basis, torch.eye(7, dtype=torch.float64).expand(2, -1, -1))
    eye = torch.eye(7, dtype=torch.float64)
    assert error(root @ root.mT - shift[:, None, None] * eye, A) < 1e-13


@pytest.mark.parametrize("damping", [1e-6, 0.1, 10.0])
def test_the_damped_core_is_the_inverse_within_the_range(damping):
    root, shift = randn(3, 5, 5), torch.tensor([0.0, 1e-7, 1e-6], dtype=torch.float64)
    kept = damping - shift.clamp(max=damping / 2)
    dense = root @ root.mT + kept[:, None, None] * torch.eye(5, dtype=torch.float64)
    assert error(damped_core(root, shift, damping), torch.linalg.inv(dense)) < 1e-9


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("damping", [1e-5, 1.0])
def test_the_damped_core_is_bounded_where_rounding_exceeds_the_damping(scale, damping):
    A = psd(9, rank=3, scale=scale**2).float()
    _, root, shift, succeeded = covariance_factors(A)
    assert succeeded
    values = torch.linalg.eigvalsh(damped_core(root, shift, damping))
    assert values.min() > 0
    assert values.max() <= 2.001 / damping


@pytest.mark.parametrize("lead", [(1,), (3,), (2, 3)])
def test_apply_low_rank_multiplies_by_the_dense_matrix(lead):
    d, r = 9, 4
    G, left, right = randn(*lead, 5, d), randn(*lead, d, r, seed=1), randn(*lead, d, r, seed=4)
    rest = randn(*lead, seed=3)
    dense = left @ right.mT + rest[..., None, None] * torch.eye(d, dtype=torch.float64)
    assert error(apply_low_rank(G, left, right, rest)[0], G @ dense) < 1e-13
    weight, bias = apply_low_rank(G[..., :-1], left, right, rest, G[..., -1])
    assert error(torch.cat([weight, bias.unsqueeze(-1)], dim=-1), G @ dense) < 1e-13


@pytest.mark.parametrize("factorise", ["eigh", "svd"])
def test_a_factorisation_that_gives_up_on_one_matrix_spoils_no_other(monkeypatch, factorise):
    """LAPACK raises for the whole batch; the others are factorised one by one."""
    whole = getattr(torch.linalg, factorise)

    def picky(matrices, **options):
        if (matrices.diagonal(dim1=-2, dim2=-1) == 7).any():
            raise torch.linalg.LinAlgError("no convergence")
        return whole(matrices, **options)

    monkeypatch.setattr(torch.linalg, factorise, picky)
    matrices = torch.stack([torch.eye(3) * size for size in (2.0, 7.0, 3.0)]).double()
    pairs = covariance_eigenpairs if factorise == "eigh" else gram_eigenpairs
    basis, eigenvalues, succeeded = pairs(matrices)
    assert succeeded.tolist() == [True, False, True]
    assert basis.isfinite().all()
    expected = torch.tensor([2.0, 3.0] if factorise == "eigh" else [4.0, 9.0]).double()
    assert torch.allclose(eigenvalues[[0, 2]], expected.unsqueeze(-1).expand(2, 3))
