"""Layers as the property test draws them: inputs, rows and gradients written out a kind at a time.

A subject answers three questions about its module without asking the library: which rows each of
its weights reads, which matrices its gradients are, and what a sample of an input is.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..cases import Case
from ..oracles import as_matrix, forward, randn, rows
from .strategies import convolutions


@dataclass
class Weight:
    """One preconditioned weight: its layer's name and its gradient as ``(groups, out, d)``."""

    name: str
    param: nn.Parameter
    bias: nn.Parameter | None

    def matrix(self, module):
        weight = self.param.grad.detach().double().clone()
        if isinstance(module, Conv1D):
            matrix = weight.T.unsqueeze(0)
        elif isinstance(module, nn.MultiheadAttention):
            matrix = weight.reshape(-1, module.embed_dim, weight.shape[-1])
        else:
            matrix = as_matrix(module, weight)
        if self.bias is None:
            return matrix
        return torch.cat([matrix, self.bias.grad.double().reshape(*matrix.shape[:2], 1)], dim=-1)


@dataclass
class Subject:
    """A module and the shapes of the inputs of each of its calls."""

    kind: type[nn.Module]
    args: tuple
    options: dict[str, Any]
    shapes: list[tuple]
    sample_dim: int = 0
    batched: bool = True

    def module(self, dtype):
        torch.manual_seed(0)
        return self.kind(*self.args, **self.options).to(dtype)

    def inputs(self, dtype, seed):
        shapes = enumerate(self.shapes)
        return [randn(*shape, seed=10 * seed + index, dtype=dtype) for index, shape in shapes]

    def call(self, module, inputs):
        outputs = forward(module, *inputs)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def batch(self, inputs):
        """The inputs in float64, those of a single sample as a batch of one."""
        wide = [tensor.double() for tensor in inputs]
        return wide if self.batched else [tensor.unsqueeze(self.sample_dim) for tensor in wide]

    def samples(self, inputs):
        return self.batch(inputs)[0].shape[self.sample_dim]

    def weights(self, module):
        return [Weight("", module.weight, module.bias)]

    def rows(self, module, inputs, chosen):
        """Name of each layer to one matrix of rows a group, from the chosen samples."""
        inputs = [tensor.index_select(self.sample_dim, chosen) for tensor in self.batch(inputs)]
        return self._rows(module, *inputs)

    def _rows(self, module, inputs):
        return {"": list(rows(module.double(), inputs))}

    def __str__(self):
        return f"{self.kind.__name__}{self.args} {self.options} on {self.shapes}"


class TransposedLinear(Subject):
    """GPT-2's Conv1D."""

    def _rows(self, module, inputs):
        return {"": [with_ones(inputs.flatten(0, -2))]}


class Attention(Subject):
    """The projections of query, key and value, with one weight or with three, and of the output."""

    def weights(self, module):
        last = Weight("out_proj", module.out_proj.weight, module.out_proj.bias)
        if module.in_proj_weight is not None:
            return [Weight("", module.in_proj_weight, module.in_proj_bias), last]
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [*(Weight(name, getattr(module, name), None) for name in names), last]

    def _rows(self, module, *inputs):
        blocks = [tensor.flatten(0, -2) for tensor in inputs]
        # Inputs without samples have become a batch of one.
        last = attended(module.double(), *inputs, batch_first=self.sample_dim == 0).flatten(0, -2)
        rows = {"out_proj": [last if module.out_proj.bias is None else with_ones(last)]}
        if module.in_proj_weight is None:
            names = [weight.name for weight in self.weights(module)]
            return rows | {name: [block] for name, block in zip(names, blocks, strict=False)}
        return rows | {
            "": blocks if module.in_proj_bias is None else [with_ones(b) for b in blocks]
        }


@torch.no_grad()
def attended(module, *inputs, batch_first=None, **call):
    """What the output projection reads: the output of attention, if it changes nothing."""
    inner = copy.deepcopy(module)
    inner.batch_first = module.batch_first if batch_first is None else batch_first
    inner.dropout = 0.0
    nn.init.eye_(inner.out_proj.weight)
    if inner.out_proj.bias is not None:
        nn.init.zeros_(inner.out_proj.bias)
    return inner(*inputs, **call)[0]


def with_ones(matrix):
    return torch.cat([matrix, matrix.new_ones(matrix.shape[0], 1)], dim=1)


sizes = st.integers(1, 4)


@st.composite
def linears(draw, kind=nn.Linear, subject=Subject):
    args, lead = (draw(sizes), draw(sizes)), draw(st.lists(sizes, max_size=3))
    # Conv1D takes its outputs first.
    fan_in = args[1] if kind is Conv1D else args[0]
    options = {} if kind is Conv1D else {"bias": draw(st.booleans())}
    return subject(kind, args, options, [(*lead, fan_in)], batched=bool(lead))


@st.composite
def attentions(draw):
    heads = draw(st.integers(1, 2))
    embed, batch_first, batched = heads * draw(st.integers(1, 3)), draw(st.booleans()), True
    options = {"bias": draw(st.booleans()), "batch_first": batch_first}
    if draw(st.booleans()):
        options |= {"kdim": draw(sizes), "vdim": draw(sizes)}
    lengths, widths = [draw(sizes)], [embed, options.get("kdim", embed), options.get("vdim", embed)]
    lengths += [draw(sizes)] * 2
    samples = draw(st.integers(0, 3))
    if samples:
        shapes = [
            (samples, length, width) if batch_first else (length, samples, width)
            for length, width in zip(lengths, widths, strict=True)
        ]
    else:
        shapes, batched = list(zip(lengths, widths, strict=True)), False
    sample_dim = 0 if batch_first or not batched else 1
    return Attention(
        nn.MultiheadAttention, (embed, heads), options, shapes, sample_dim, batched=batched
    )


def _of_case(case: Case):
    dims = int(case.kind.__name__[-2])
    batched = len(case.shape) == dims + 2
    return Subject(case.kind, case.args, case.options, [case.shape], batched=batched)


def subjects():
    return st.one_of(
        linears(),
        linears(Conv1D, TransposedLinear),
        convolutions().map(_of_case),
        attentions(),
    )
