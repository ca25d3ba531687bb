"""NysAct's curvature: a Nystrom approximation of the activation covariance from a sketch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.curvature.curvature import Curvature, Damping, Shape, Tensors, lift, seeded
from nysact.curvature.linalg import (
    apply_low_rank,
    covariance_factors,
    damped_core,
    nystrom_factors,
)
from nysact.layers.linear_map import LinearMap

SKETCHES = ("columns", "gaussian", "subspace")


class Nystrom(Curvature):
    """Rank-r Nystrom approximation of the covariance, the exact covariance where r = d.

    The probes are ``"columns"`` of the identity (NysAct-S), ``"gaussian"`` (NysAct-G), or a
    ``"subspace"``, the basis found by the last refresh, whose statistics go on with ``carries``.
    """

    def __init__(
        self, sketch: str, *, tail: bool, power: float = 1.0, carries: bool = False
    ) -> None:
        self._sketch = sketch
        self._tail = tail  # whether the trace that is missed is spread over the complement
        self._power = power  # of the inverse
        self._carries = carries and sketch == "subspace"

    def statistics(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        return {"sketch": (shape.dim, shape.rank), "trace": ()}

    def initial(self, shape: Shape, seeds: Sequence[int]) -> Tensors:
        size = (len(seeds), shape.groups, shape.dim, shape.rank)
        if self._sketch == "subspace" and shape.rank < shape.dim:
            # The first probes are this basis.
            basis = torch.stack([_gaussian(shape, seed) for seed in seeds])
        else:
            basis = torch.zeros(size, dtype=torch.float64, device="cpu")
        root = basis.new_zeros(*size[:2], shape.rank, shape.rank)
        none = basis.new_zeros(size[:2])
        return {"basis": basis, "root": root, "shift": none, "residual": none.clone()}

    def restarts(self, shape: Shape) -> bool:
        # The exact covariance depends on no probes.
        return shape.rank < shape.dim

    def probes(self, shape: Shape, factors: Tensors, seeds: Sequence[int]) -> Tensor:
        basis = factors["basis"]
        if shape.rank == shape.dim:
            return super().probes(shape, factors, seeds)
        if self._sketch == "subspace":
            return basis
        draw = _columns if self._sketch == "columns" else _gaussian
        drawn = torch.stack([draw(shape, seed) for seed in seeds]).to(basis.dtype)
        # From pinned memory the copy waits for nothing.
        drawn = drawn.pin_memory() if basis.is_cuda else drawn
        return drawn.to(basis.device, non_blocking=True)

    def measure(self, linear_map: LinearMap, probes: Tensor, offset: int = 0) -> Tensors:
        sketch = linear_map.sketch(probes) if probes.numel() else linear_map.covariance()
        return {"sketch": sketch, "trace": linear_map.squared_norm()}

    def refresh(self, statistics: Tensors, probes: Tensor) -> tuple[Tensors, Tensor]:
        sketch = statistics["sketch"]
        dim, rank = sketch.shape[-2:]
        if rank == dim:
            basis, root, shift, succeeded = covariance_factors(sketch)
            residual = torch.zeros_like(shift)
        else:
            basis, root, shift, succeeded = nystrom_factors(sketch, probes)
            captured = _captured(root, shift)
            residual = (statistics["trace"] - captured).clamp(min=0) / (dim - rank)
        return {"basis": basis, "root": root, "shift": shift, "residual": residual}, succeeded

    def carried(self, factors: Tensors, rows: Tensor) -> Tensors:
        if not self._carries:
            return {}
        # The projection of the running sketch on the new basis: the approximation times its basis.
        core = factors["root"] @ factors["root"].mT
        core.diagonal(dim1=-2, dim2=-1).sub_(factors["shift"].unsqueeze(-1))
        return {"sketch": factors["basis"] @ core * lift(rows, core)}

    def mean_eigenvalue(self, factors: Tensors, dim: int) -> Tensor:
        missed = factors["residual"] * (dim - factors["root"].shape[-1])
        return (_captured(factors["root"], factors["shift"]) + missed).clamp(min=0) / dim

    def action(self, factors: Tensors, damping: Damping, ready: Tensor) -> Tensors:
        basis, residual = factors["basis"], factors["residual"]
        core = damped_core(factors["root"], factors["shift"], damping, self._power)
        rest = (residual * self._tail + damping).pow(-self._power)
        if basis.shape[-1] == basis.shape[-2]:
            # The basis spans everything; a zero here spares a cancellation.
            rest = torch.zeros_like(rest)
        rest = torch.where(ready.view(-1, 1), rest, 1)
        core.diagonal(dim1=-2, dim2=-1).sub_(rest.unsqueeze(-1))
        left = torch.where(lift(ready, core), basis.to(core.dtype) @ core, 0)
        left = left.to(basis.dtype).mT.contiguous().mT
        return {"left": left, "right": basis, "rest": rest}

    def precondition(
        self, weight: Tensor, bias: Tensor | None, action: Tensors
    ) -> tuple[Tensor, Tensor | None]:
        return apply_low_rank(weight, action["left"], action["right"], action["rest"], bias)

    def summary(self, factors: Tensors) -> Tensors:
        residual, (dim, rank) = factors["residual"], factors["basis"].shape[-2:]
        squares = torch.linalg.svdvals(factors["root"].double()).square().flip(-1)
        eigenvalues = (squares - factors["shift"].unsqueeze(-1)).clamp(min=0).to(residual.dtype)
        captured = eigenvalues.sum(-1)
        trace = captured + residual * (dim - rank)
        return {
            "eigenvalues": eigenvalues,
            "trace": trace,
            "trace_captured": torch.where(trace > 0, captured / trace, 0),
            "tail": residual * self._tail,
        }


def _captured(root: Tensor, shift: Tensor) -> Tensor:
    """Trace of the approximation, ``R R^T - shift I``."""
    return root.square().sum((-2, -1)) - root.shape[-1] * shift


def _columns(shape: Shape, seed: int) -> Tensor:
    """Draw distinct columns of the identity, ``(groups, dim, rank)``."""
    scores = torch.rand(
        shape.groups, shape.dim, generator=seeded(seed), dtype=torch.float64, device="cpu"
    )
    chosen = scores.argsort(-1)[:, : shape.rank].unsqueeze(1)
    probes = torch.zeros(shape.groups, shape.dim, shape.rank, dtype=torch.float64, device="cpu")
    return probes.scatter_(1, chosen, 1)


def _gaussian(shape: Shape, seed: int) -> Tensor:
    """Draw from N(0, 1/d) and orthonormalise, ``(groups, dim, rank)``."""
    size = (shape.groups, shape.dim, shape.rank)
    drawn = torch.randn(size, generator=seeded(seed), dtype=torch.float64, device="cpu")
    # The approximation depends on the range alone; orthonormal probes keep it well conditioned.
    basis: Tensor = torch.linalg.qr(drawn).Q
    return basis
