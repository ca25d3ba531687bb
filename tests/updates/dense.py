"""Muon and its models written out: one matrix at a time, in float64."""

import math

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..oracles import as_matrix, as_weight, covariance, damped_power, randn, rows

A, B, C = 3.4445, -4.7750, 2.0315


def newton_schulz(matrix, steps=5):
    values = matrix / matrix.norm()
    for _ in range(steps):
        gram = values @ values.T
        values = A * values + B * gram @ values + C * gram @ gram @ values
    return values


class DenseMuon:
    """The step of one weight, from gradients as ``(matrices, out, d)``."""

    def __init__(self, lr, momentum, *, nesterov=True, weight_decay=0.0, original=False):
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.weight_decay, self.original = weight_decay, original
        self.buffer = 0.0

    def step(self, weight, gradient):
        self.buffer = self.momentum * self.buffer + (1 - self.momentum) * gradient
        ahead = self.buffer
        if self.nesterov:
            ahead = (1 - self.momentum) * gradient + self.momentum * self.buffer
        out, fan_in = gradient.shape[1:]
        wide = math.sqrt(max(1, out / fan_in)) if self.original else 0.2 * max(out, fan_in) ** 0.5
        moves = torch.stack([newton_schulz(matrix) for matrix in ahead])
        return weight * (1 - self.lr * self.weight_decay) - self.lr * wide * moves


def trace_power(matrix, gamma, power):
    """``(A + gamma tr(A)/d I)^-power``, a group at a time."""
    return torch.stack(
        [damped_power(each, gamma * float(each.trace()) / len(each), power) for each in matrix]
    )


class Packed(nn.Module):
    """GPT-2's projection of query, key and value: one weight, three matrices."""

    def __init__(self, out=12, fan_in=4):
        super().__init__()
        self.c_attn = Conv1D(out, fan_in)
        nn.init.normal_(self.c_attn.bias)

    def forward(self, inputs):
        return self.c_attn(inputs)


class Attention(nn.Module):
    """An attention of three different inputs."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, inputs):
        return self.attention(inputs, inputs.flip(1), inputs.cos(), need_weights=False)[0]


class Subject:
    """A model of one layer: its inputs, its joint gradient and the rows that the weight reads."""

    def __init__(self, make, shape):
        self.make, self.shape = make, shape

    def model(self):
        torch.manual_seed(0)
        return self.make().double()

    def inputs(self, seed):
        return randn(*self.shape, seed=seed)

    def power(self, model):
        """That of ``power="auto"``: gentler where the weight does not slide over its inputs."""
        return 1.0 if hasattr(model, "kernel_size") else 0.5

    def weight(self, model):
        return model.weight

    def bias(self, model):
        return model.bias

    def matrices(self, model, values):
        """Values of the weight's shape as ``(matrices, out, d)``."""
        return as_matrix(model, values)

    def from_matrices(self, model, matrices):
        return as_weight(model, matrices)

    def covariance(self, model, inputs):
        """One a matrix of :meth:`matrices`."""
        return covariance(rows(model, inputs))


class PackedSubject(Subject):
    def weight(self, model):
        return model.c_attn.weight

    def bias(self, model):
        return model.c_attn.bias

    def matrices(self, model, values):
        return torch.stack(values.T.chunk(3))

    def from_matrices(self, model, matrices):
        return torch.cat(list(matrices)).T

    def covariance(self, model, inputs):
        return _with_ones(inputs).expand(3, -1, -1)


class AttentionSubject(Subject):
    def weight(self, model):
        return model.attention.in_proj_weight

    def bias(self, model):
        return model.attention.in_proj_bias

    def matrices(self, model, values):
        return torch.stack(values.chunk(3))

    def from_matrices(self, model, matrices):
        return torch.cat(list(matrices))

    def covariance(self, model, inputs):
        return torch.stack([_with_ones(each) for each in (inputs, inputs.flip(1), inputs.cos())])


def _with_ones(inputs):
    flat = inputs.flatten(0, -2)
    flat = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
    return flat.T @ flat / len(flat)


SUBJECTS = {
    "linear": Subject(lambda: nn.Linear(5, 4), (8, 5)),
    "tall": Subject(lambda: nn.Linear(3, 7), (8, 3)),
    "grouped convolution": Subject(lambda: nn.Conv2d(4, 6, 2, groups=2), (6, 4, 5, 5)),
    "transposed convolution": Subject(lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (6, 4, 3, 3)),
    "packed": PackedSubject(Packed, (4, 5, 4)),
    "attention": AttentionSubject(Attention, (4, 5, 6)),
}
