"""Linear algebra of low-rank curvatures: pure functions on batches of matrices."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

# A first shift at the level of rounding, and a larger one for the sketch that defeats it.
_SHIFTS = (2.0, 2000.0)


def working_dtype(tensor: Tensor) -> torch.dtype:
    """Return float64, which costs nothing for small matrices, or float32 on devices without it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def nystrom_factors(sketch: Tensor, probes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factor the Nystrom approximation of A, ``Q (R R^T - nu I) Q^T``, from ``A @ probes``."""
    # The shifted form of Tropp, Yurtsever, Udell and Cevher, "Fixed-rank approximation of a
    # positive-semidefinite matrix from streaming data" (2017), algorithm 3, with Cholesky QR in
    # place of the singular value decomposition, so that a device never waits for the host.
    # sketch, probes: (..., d, r), the probes of rank r. Returns Q (..., d, r), orthonormal,
    # R (..., r, r), nu (...) and a boolean (...), whether the factorisation succeeded; where it
    # failed, the others mean nothing and needn't be finite.
    probes = probes.to(working_dtype(sketch))
    basis, root, shift, succeeded = _with_two_shifts(sketch, partial(_shifted_factors, probes))
    # A sketch that is zero or too small to have digits, of dead inputs say, spans no basis.
    empty = (root == 0).all(-1).all(-1)[..., None, None]
    spanned = _orthonormalise(probes)[0].to(sketch.dtype)
    return torch.where(empty, spanned, basis), root, shift, succeeded


def _with_two_shifts(
    matrix: Tensor, factorise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factorise with the first shift, or else with the second, without waiting for a device."""
    finite = matrix.isfinite().all(-1).all(-1)
    wide = torch.where(finite[..., None, None], matrix, 0).to(working_dtype(matrix))
    scale = torch.linalg.vector_norm(wide, dim=(-2, -1))
    unit = scale * (matrix.shape[-2] ** 0.5 * torch.finfo(matrix.dtype).eps)
    small = factorise(wide, unit * _SHIFTS[0])
    first = small[2]
    # Asking a device for the outcome would take longer than the second factorisation.
    needed = matrix.device.type != "cpu" or not bool(first.all())
    large = factorise(wide, unit * _SHIFTS[1]) if needed else small
    # So near the smallest number that its digits are noise: the inputs are as good as dead.
    empty = scale < torch.finfo(matrix.dtype).tiny / torch.finfo(matrix.dtype).eps
    good = first[..., None, None]
    basis, root = (torch.where(good, a, b) for a, b in zip(small[:2], large[:2], strict=True))
    root = torch.where(empty[..., None, None], 0, root)
    shift = torch.where(first, unit * _SHIFTS[0], unit * _SHIFTS[1])
    succeeded = finite & (first | large[2] | empty)
    basis, root, shift = (value.to(matrix.dtype) for value in (basis, root, shift))
    return basis, root, shift, succeeded


def _shifted_factors(
    probes: Tensor, sketch: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Basis and root for one shift, and whether every factorisation on the way succeeded."""
    shifted = sketch + shift[..., None, None] * probes
    core = probes.mT @ shifted
    factor, info = torch.linalg.cholesky_ex((core + core.mT) / 2)
    half = torch.linalg.solve_triangular(factor, shifted.mT, upper=False).mT
    basis, root, succeeded = _orthonormalise(half)
    return basis, root, succeeded & (info == 0)


def _orthonormalise(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cholesky QR, twice for orthogonality: ``matrix = basis root^T``."""
    first, info = torch.linalg.cholesky_ex(matrix.mT @ matrix)
    basis = torch.linalg.solve_triangular(first, matrix.mT, upper=False).mT
    second, again = torch.linalg.cholesky_ex(basis.mT @ basis)
    basis = torch.linalg.solve_triangular(second, basis.mT, upper=False).mT
    return basis, (first @ second).mT, (info == 0) & (again == 0)


def covariance_factors(covariance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factor a covariance (..., d, d) as :func:`nystrom_factors` does, with r = d and Q = I."""
    _, root, shift, succeeded = _with_two_shifts(covariance, _cholesky_root)
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return identity.expand_as(covariance), root, shift, succeeded


def _cholesky_root(covariance: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Root of the shifted covariance; its basis is the identity, which needs no tensor here."""
    core = (covariance + covariance.mT) / 2
    core.diagonal(dim1=-2, dim2=-1).add_(shift.unsqueeze(-1))
    root, info = torch.linalg.cholesky_ex(core)
    return root, root, info == 0


def damped_core(root: Tensor, shift: Tensor, damping: float | Tensor, power: float = 1.0) -> Tensor:
    """Compute ``(R R^T + (damping - shift) I)^-power``, within the range of the approximation."""
    # root: (..., r, r); shift: (...), as is a damping that is a tensor; float64 where possible
    wide = root.to(working_dtype(root))
    core = wide @ wide.mT
    # At least half the damping is left, so that the inverse is at most 2 / damping.
    kept = damping - shift.to(core.dtype).clamp(max=damping / 2)
    core.diagonal(dim1=-2, dim2=-1).add_(kept.unsqueeze(-1))
    identity = torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
    if power != 1:
        (values, vectors), succeeded = _each(torch.linalg.eigh, core)
        inverse = (vectors * values.pow(-power).unsqueeze(-2)) @ vectors.mT
    else:
        factor, info = torch.linalg.cholesky_ex(core)
        half = torch.linalg.solve_triangular(factor, identity.expand_as(core), upper=False)
        inverse, succeeded = half.mT @ half, info == 0
    # Where rounding defeats a factorisation: the trace is above all eigenvalues, so the step is
    # shorter and no less safe.
    trace = core.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return torch.where(succeeded[..., None, None], inverse, identity * trace**-power)


def _each(
    factorise: Callable[[Tensor], tuple[Tensor, ...]], matrices: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Factorise a batch, and say which succeeded; the others get an identity's factors."""
    succeeded = torch.ones(matrices.shape[:-2], dtype=torch.bool, device=matrices.device)
    try:
        return factorise(matrices), succeeded
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if matrices.ndim == 2:
            return factorise(torch.eye(*matrices.shape, device="cpu").to(matrices)), ~succeeded
    # One by one, so that a bad matrix spoils no other.
    factors, outcomes = zip(*(_each(factorise, matrix) for matrix in matrices), strict=True)
    return tuple(map(torch.stack, zip(*factors, strict=True))), torch.stack(outcomes)


def covariance_eigenpairs(covariance: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the eigenpairs of a covariance, in ascending order."""
    # covariance: (..., d, d). Returns the basis (..., d, d), the eigenvalues (..., d) and a
    # boolean (...), whether the factorisation succeeded; an identity's factors where it failed.
    finite = covariance.isfinite().all(-1).all(-1)
    wide = torch.where(finite[..., None, None], covariance, 0).to(working_dtype(covariance))
    (eigenvalues, basis), converged = _each(torch.linalg.eigh, (wide + wide.mT) / 2)
    dtype = covariance.dtype
    return basis.to(dtype), eigenvalues.clamp(min=0).to(dtype), finite & converged


def gram_eigenpairs(rows: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the min(m, d) largest eigenpairs of ``rows^T rows``, rows (..., m, d), descending."""
    finite = rows.isfinite().all(-1).all(-1)
    wide = torch.where(finite[..., None, None], rows, 0).to(working_dtype(rows))
    thin = partial(torch.linalg.svd, full_matrices=False)
    (_, values, basis), converged = _each(thin, wide)
    return basis.mT.to(rows.dtype), values.square().to(rows.dtype), finite & converged


def inverse_or_identity(basis: Tensor, damped: Tensor, ready: Tensor) -> Tensor:
    """Invert a matrix given by its damped eigenpairs; layers that aren't ready get I."""
    # basis: (layers, groups, n, n); damped: (layers, groups, n); ready: (layers,) boolean
    inverse = (basis / damped.unsqueeze(-2)) @ basis.mT
    identity = torch.eye(inverse.shape[-1], dtype=inverse.dtype, device=inverse.device)
    return torch.where(ready[:, None, None, None], inverse, identity)


def apply_low_rank(
    gradient: Tensor, left: Tensor, right: Tensor, rest: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Multiply by ``rest I + left right^T`` from the right, into new tensors."""
    # gradient: (..., out, d), or without its last column, which then is the bias, (..., out)
    # left, right: (..., d, r); rest: (...)
    lead, fan_in = gradient.shape[:-2], gradient.shape[-1]
    weight = gradient.reshape(-1, *gradient.shape[-2:])
    left, right = (factor.reshape(-1, *factor.shape[-2:]) for factor in (left, right))
    rest = rest.reshape(-1, 1, 1)
    # Transposed: a product with few rows takes half the time of one with few columns.
    coordinates = torch.bmm(left[:, :fan_in].mT, weight.mT).mT
    if bias is not None:
        column = bias.reshape(*weight.shape[:2], 1)
        coordinates = torch.baddbmm(coordinates, column, left[:, fan_in:])
        product = torch.baddbmm(column * rest, coordinates, right[:, fan_in:].mT)
        bias = product.view(bias.shape)
    # In place: a large gradient is read and written no more often than needed.
    product = (weight * rest).baddbmm_(coordinates, right[:, :fan_in].mT)
    return product.view(*lead, *gradient.shape[-2:]), bias
