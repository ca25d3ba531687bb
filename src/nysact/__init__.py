"""NysAct: gradients preconditioned by a sketched activation covariance, at the cost of SGD."""

from importlib.metadata import version

from nysact.layers import (
    Call,
    Convolution,
    ConvolutionMap,
    DenseMap,
    Geometry,
    LayerAdapter,
    LinearMap,
    register,
)
from nysact.optim import FOOF, KFAC, SKFAC, Eva, NysAct, Preconditioner

__version__ = version("nysact")

__all__ = [
    "FOOF",
    "KFAC",
    "SKFAC",
    "Call",
    "Convolution",
    "ConvolutionMap",
    "DenseMap",
    "Eva",
    "Geometry",
    "LayerAdapter",
    "LinearMap",
    "NysAct",
    "Preconditioner",
    "register",
]
