"""Layer adapters: the geometry of every kind of layer that can be preconditioned."""

from nysact.layers import attention, convolution, linear  # noqa: F401, each registers itself
from nysact.layers.adapter import Call, Geometry, LayerAdapter
from nysact.layers.linear_map import Convolution, ConvolutionMap, DenseMap, LinearMap
from nysact.layers.registry import find_adapters, register

__all__ = [
    "Call",
    "Convolution",
    "ConvolutionMap",
    "DenseMap",
    "Geometry",
    "LayerAdapter",
    "LinearMap",
    "find_adapters",
    "register",
]
