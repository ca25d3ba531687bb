"""Rows and output gradients of one layer, and the dense formulas of the family on them."""

import math

import torch
from torch import nn

from ...oracles import as_matrix, damped_inverse, forward, outputs_by_row, randn, rows

PLAIN = {
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "cov_interval": 1,
    "inv_interval": 1,
}

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (7, 5)),
    "linear-sequence": (lambda: nn.Linear(5, 3, bias=False), (4, 6, 5)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1), (4, 2, 5, 4)),
    "grouped": (lambda: nn.Conv2d(4, 6, (1, 2), groups=2, stride=2), (3, 4, 4, 6)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (3, 2, 4)),
}


class Observed:
    """One forward and backward of a layer under a loss that is a mean over samples.

    Attributes:
        rows: ``(groups, rows, d)``.
        outputs: Gradients of each sample's own loss, ``(groups, rows, out)``.
        samples: Number of samples.
        gradient: Gradient of weight and bias, ``(groups, out, d)``.
    """

    def __init__(self, layer, inputs, seed=0):
        values = forward(layer, inputs)
        weights = randn(*values.shape, seed=seed + 7)
        self.samples = inputs.shape[0]
        (values * weights).sum().div(self.samples).backward()
        self.rows = rows(layer, inputs)
        self.outputs = outputs_by_row(layer, weights, inputs).mT
        self.gradient = joint(layer)

    def by_sample(self, values):
        """``(groups, samples, positions, features)``; rows are in order of samples."""
        return values.reshape(values.shape[0], self.samples, -1, values.shape[-1])

    def input_covariance(self):
        return self.rows.mT @ self.rows / self.rows.shape[1]

    def output_covariance(self):
        return self.outputs.mT @ self.outputs / self.samples


def joint(layer, of=lambda parameter: parameter.grad):
    """Weight and bias, or their gradients, as ``(groups, out, d)``."""
    matrix = as_matrix(layer, of(layer.weight))
    if layer.bias is None:
        return matrix
    return torch.cat([matrix, of(layer.bias).reshape(*matrix.shape[:2], 1)], dim=-1)


def value(parameter):
    return parameter.detach().clone()


def two_sided(gradient, inputs, outputs, damping):
    """K-FAC's ``(B + sqrt(gamma) / pi)^-1 G (A + pi sqrt(gamma))^-1``."""
    products = []
    for g, a, b in zip(gradient, inputs, outputs, strict=True):
        pi = math.sqrt((a.trace() / len(a)) / (b.trace() / len(b)))
        left = damped_inverse(b, math.sqrt(damping) / pi)
        products.append(left @ g @ damped_inverse(a, math.sqrt(damping) * pi))
    return torch.stack(products)


def step_of(build, name, **options):
    """Take one step of an optimizer on one layer; give what was observed and the step's P(G)."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().double()
    model = nn.ModuleDict({"layer": layer})
    optimizer = build(model, **{**PLAIN, **options})
    observed = Observed(layer, randn(*shape))
    before = joint(layer, value)
    optimizer.step()
    return observed, (before - joint(layer, value)) / PLAIN["lr"], optimizer
