"""Slow, obvious computations that the library's results are held against."""

import math
import warnings

import torch
from torch import nn
from torch.func import functional_call


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def error(actual, expected):
    """Relative error in the Frobenius norm; absolute where zero is expected."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = torch.linalg.vector_norm(expected)
    return float(torch.linalg.vector_norm(actual - expected) / (scale if scale else 1))


def n_groups(module):
    return getattr(module, "groups", 1)


def as_weight(module, matrix):
    """Put ``(groups, out, fan_in)`` into the weight's shape."""
    shape = module.weight.shape
    if getattr(module, "transposed", False):
        groups, out, _ = matrix.shape
        return matrix.reshape(groups, out, -1, math.prod(shape[2:])).transpose(1, 2).reshape(shape)
    return matrix.reshape(shape)


def as_matrix(module, weight):
    """Put a tensor of the weight's shape into ``(groups, out, fan_in)``."""
    groups = n_groups(module)
    if getattr(module, "transposed", False):
        out, taps = weight.shape[1], math.prod(weight.shape[2:])
        return weight.reshape(groups, -1, out, taps).transpose(1, 2).reshape(groups, out, -1)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def outputs_by_row(module, outputs, inputs):
    """Put a layer's outputs into ``(groups, out, rows)``."""
    if isinstance(module, nn.Linear):
        return outputs.reshape(-1, outputs.shape[-1]).T.unsqueeze(0)
    if inputs.ndim == len(module.kernel_size) + 1:
        outputs = outputs.unsqueeze(0)
    channels_first = outputs.transpose(0, 1).flatten(1)
    return channels_first.reshape(n_groups(module), -1, channels_first.shape[1])


def forward(module, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        return module(*args, **kwargs)


@torch.no_grad()
def rows(module, inputs, **kwargs):
    """Rows of a layer's linear map, ``(groups, rows, d)``, the bias's constant last.

    Column j is what the layer computes when each of its filters is the j-th unit vector. Nothing
    that observes the layer takes notice, as gradients are off.
    """
    matrix = as_matrix(module, module.weight.detach())
    columns = []
    for j in range(matrix.shape[-1]):
        unit = torch.zeros_like(matrix)
        unit[..., j] = 1
        values = {"weight": as_weight(module, unit)}
        if module.bias is not None:
            values["bias"] = torch.zeros_like(module.bias)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
            outputs = functional_call(module, values, (inputs,), kwargs)
        columns.append(outputs_by_row(module, outputs, inputs)[:, 0])
    if module.bias is not None:
        columns.append(torch.ones_like(columns[0]))
    return torch.stack(columns, dim=-1)


def covariance(*row_blocks):
    """Mean outer product of rows, ``(groups, d, d)``, the blocks taken as one batch."""
    every = torch.cat(row_blocks, dim=1)
    return every.mT @ every / every.shape[1]


def average(values, decay):
    """Exponential moving average of a list, divided by the sum of its weights."""
    weights = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def damped_inverse(matrix, damping):
    return torch.linalg.inv(matrix + damping * torch.eye(matrix.shape[-1]).to(matrix))


def damped_power(matrix, damping, power):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * (values + damping).pow(-power).unsqueeze(-2)) @ vectors.mT


def nystrom(sketch, probes):
    """``Y (Omega^T Y)^+ Y^T``, written out."""
    core = probes.mT @ sketch
    return sketch @ torch.linalg.pinv((core + core.mT) / 2, hermitian=True) @ sketch.mT


class Schedule:
    """The covariance that a layer's factors stand for, by the documented schedule.

    The rows of every ``cov_interval``-th step are averaged, with weights that fall by ``decay``
    from one such step to the next; every ``inv_interval`` steps, and as soon as a layer has its
    first data, the average is taken over. A sketch's average then restarts, as its probes do;
    that of an exact covariance goes on.
    """

    def __init__(self, decay, cov_interval, inv_interval, *, restarts):
        self.decay, self.cov_interval, self.inv_interval = decay, cov_interval, inv_interval
        self.restarts = restarts
        self.covariance, self.step = None, 0
        self.total, self.count = 0.0, 0.0

    def update(self, *row_blocks):
        if self.step % self.cov_interval == 0:
            self.total, self.count = self.decay * self.total, self.decay * self.count
            if row_blocks:
                rows = sum(block.shape[1] for block in row_blocks)
                self.total, self.count = (
                    self.total + rows * covariance(*row_blocks),
                    self.count + rows,
                )
        due = self.step % self.inv_interval == 0 or self.covariance is None
        if due and self.count:
            self.covariance = self.total / self.count
            if self.restarts:
                self.total, self.count = 0.0, 0.0
        self.step += 1

    def inverse(self, damping):
        return damped_inverse(self.covariance, damping)
