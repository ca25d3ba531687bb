"""BFGS and L-BFGS inverses, and the damping of their pairs."""

import torch
from torch import Tensor

# Powell's damping keeps s^T y at this share of y^T H y, or more.
POWELL = 0.2
# A pair is left out unless s^T y is more than this times s^T s and the gradient's norm.
CAUTION = 1e-4


class Pairs:
    """The L-BFGS inverse of a list of pairs that starts from the identity.

    In the compact form of Byrd, Nocedal and Schnabel (1994): the same matrix as BFGS updates one
    after the other.
    """

    def __init__(self, s: Tensor, y: Tensor) -> None:
        self.s, self.y = s.double(), y.double()  # steps and changes, (pairs, n), the oldest first

    def inverse_product(self, other: Tensor) -> Tensor:
        """Multiply a vector or matrix by the inverse from the left, in its own dtype."""
        if len(self.s) == 0:
            return other
        wide = other.double().reshape(len(other), -1)
        products = self.s @ self.y.T
        triangle = products.triu()
        u = torch.linalg.solve_triangular(triangle, self.s @ wide, upper=True)
        core = products.diagonal()[:, None] * u + self.y @ (self.y.T @ u - wide)
        w = torch.linalg.solve_triangular(triangle.T, core, upper=False)
        product: Tensor = wide + self.s.T @ w - self.y.T @ u
        return product.view(other.shape).to(other)

    def append(self, s: Tensor, y: Tensor, memory: int) -> "Pairs":
        """Add a pair, and drop the oldest beyond ``memory``."""
        return Pairs(torch.cat([self.s, s[None]])[-memory:], torch.cat([self.y, y[None]])[-memory:])


def bfgs_update(inverse: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Update a symmetric inverse so that it maps y to s, where ``s^T y > 0``."""
    curvature = s @ y
    product = inverse @ y
    scale = (1 + y @ product / curvature) / curvature
    cross = torch.outer(s, product) / curvature
    return inverse + scale * torch.outer(s, s) - cross - cross.T


def double_damping(s: Tensor, y: Tensor, product: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Damp a pair so that BFGS keeps its inverse, whose product with y is given, bounded."""
    quadratic, curvature = y @ product, s @ y
    if curvature < POWELL * quadratic:
        share = (1 - POWELL) * quadratic / (quadratic - curvature)
        s = share * s + (1 - share) * product
    length, curvature = s @ s, s @ y
    if curvature < damping * length:
        share = (1 - damping) * length / (length - curvature)
        y = share * y + (1 - share) * s
    return s, y


def is_safe(s: Tensor, y: Tensor, gradient: Tensor) -> bool:
    """Whether a pair has enough curvature to be used."""
    curvature = float(s @ y)
    return curvature > CAUTION * float(s @ s) * float(gradient.norm())
