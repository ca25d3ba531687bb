"""Layer adapters: the geometry of every kind of layer that can be preconditioned."""

from nysact.layers import (  # noqa: F401, each registers itself
    attention,
    convolution,
    experts,
    linear,
    standardized,
)
from nysact.layers.adapter import Call as Call
from nysact.layers.adapter import Geometry as Geometry
from nysact.layers.adapter import LayerAdapter as LayerAdapter
from nysact.layers.linear_map import Convolution as Convolution
from nysact.layers.linear_map import ConvolutionMap as ConvolutionMap
from nysact.layers.linear_map import DenseMap as DenseMap
from nysact.layers.linear_map import LinearMap as LinearMap
from nysact.layers.registry import find_adapters as find_adapters
from nysact.layers.registry import register as register
