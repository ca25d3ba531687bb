"""Curvatures: what is accumulated of a layer's inputs and how it acts on the gradient."""

from nysact.curvature.curvature import (
    Curvature,
    JoinedCurvature,
    Shape,
    Tensors,
    known_or_identity,
    lift,
)
from nysact.curvature.nystrom import SKETCHES, Nystrom

__all__ = [
    "SKETCHES",
    "Curvature",
    "JoinedCurvature",
    "Nystrom",
    "Shape",
    "Tensors",
    "known_or_identity",
    "lift",
]
