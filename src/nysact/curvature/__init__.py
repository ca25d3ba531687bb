"""Curvatures: what is accumulated of a layer's inputs and how it acts on the gradient."""

from nysact.curvature.curvature import (
    Curvature,
    Damping,
    JoinedCurvature,
    Shape,
    Tensors,
    lift,
)
from nysact.curvature.eva import KroneckerVectors
from nysact.curvature.exact import Exact
from nysact.curvature.kfac import Kronecker
from nysact.curvature.nystrom import SKETCHES, Nystrom
from nysact.curvature.skfac import SampledKronecker
from nysact.curvature.two_sided import TwoSided

__all__ = [
    "SKETCHES",
    "Curvature",
    "Damping",
    "Exact",
    "JoinedCurvature",
    "Kronecker",
    "KroneckerVectors",
    "Nystrom",
    "SampledKronecker",
    "Shape",
    "Tensors",
    "TwoSided",
    "lift",
]
