"""Poisson's equation on the unit square, zero on its border, with a solution in closed form."""

import math

import torch
from torch import Tensor

from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.randomness import stream

# The solution is the sum of sines of these frequencies, each with its weight.
MODES = {1: 1.0, 4: 0.1}
POINTS = 16384
GRID = 64  # test points along each side


def load_poisson(validation: int) -> Data:
    """Draw points (n, 2) with the right side of -Δu = f (n, 1) for training, and u for the rest."""
    train, held_out = torch.rand(POINTS + validation, 2, generator=stream("poisson")).split(
        [POINTS, validation]
    )
    side = (torch.arange(GRID) + 0.5) / GRID
    test = torch.cartesian_prod(side, side)
    others = ImageSet(held_out, solution(held_out)) if validation else None
    sets = ImageSet(train, right_side(train)), ImageSet(test, solution(test))
    return Data(*sets, validation=others)


def solution(points: Tensor) -> Tensor:
    """The exact u of points (n, 2)."""
    return sum((w * wave(points, k) for k, w in MODES.items()), torch.zeros(()))


def right_side(points: Tensor) -> Tensor:
    """The right side f of points (n, 2)."""
    scales = {k: 2 * (math.pi * k) ** 2 * w for k, w in MODES.items()}
    return sum((scale * wave(points, k) for k, scale in scales.items()), torch.zeros(()))


def wave(points: Tensor, frequency: int) -> Tensor:
    """The product of the sines of both coordinates, (n, 1)."""
    return (math.pi * frequency * points).sin().prod(1, keepdim=True)
