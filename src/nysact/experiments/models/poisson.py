"""A network for Poisson's equation: trained, it gives the residual; evaluated, the solution."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class PoissonNetwork(nn.Module):
    """Gives -Δu of points (n, 2) in training and u in evaluation, with u zero on the border."""

    def __init__(self, in_features: int = 2, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        sizes = [in_features, *[width] * (depth - 1), 1]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, points: Tensor) -> Tensor:
        """Differentiate u twice by each coordinate, or give it."""
        if not self.training:
            return self.solution(points)
        points = points.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.solution(points).sum(), points, create_graph=True)
        second = [
            torch.autograd.grad(slope[:, axis].sum(), points, create_graph=True)[0][:, axis]
            for axis in range(points.shape[1])
        ]
        return -torch.stack(second).sum(0)[:, None]

    def solution(self, points: Tensor) -> Tensor:
        """The network's u (n, 1)."""
        border = (4 * points * (1 - points)).prod(1, keepdim=True)
        found: Tensor = border * self.layers(2 * points - 1)
        return found
