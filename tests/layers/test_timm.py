"""Layers of timm and transformers with a forward of their own, known by their full names."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import (
    Conv2dSame,
    Linear,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import nn
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d
from transformers.models.falcon.modeling_falcon import FalconLinear

from nysact import KFAC, Call
from nysact.layers import find_adapters

from ..cases import Case
from ..oracles import covariance, damped_inverse, error, n_groups, randn, rows
from ..steps import backward, exact, joint_gradient, joint_value, plain

IMAGES = (3, 4, 9, 6)
LINEAR = [Case(kind, (4, 3), (2, 5, 4)) for kind in (Linear, FalconLinear)] + [
    Case(Conv2dSame, (4, 6, 3), IMAGES, options)
    for options in (
        {},
        {"stride": 2},
        {"stride": (3, 2), "groups": 2, "bias": False},
        {"stride": 2, "dilation": (2, 1)},
    )
]
STANDARDISED = [
    Case(kind, (4, 6, 3), IMAGES, options)
    for kind, options in (
        (StdConv2d, {"groups": 2}),
        (StdConv2d, {"stride": 2, "bias": True}),
        (StdConv2dSame, {"stride": 2}),
        (StdConv2dSame, {}),
        (ScaledStdConv2d, {"stride": 2}),
        (ScaledStdConv2d, {"dilation": 2, "bias": False}),
        (ScaledStdConv2dSame, {"stride": 3, "groups": 2}),
        (WeightStandardizedConv2d, {"stride": 2}),
        (WeightStandardizedConv2d, {}),
    )
]
cases = pytest.mark.parametrize("case", [*LINEAR, *STANDARDISED], ids=str)
standardised = pytest.mark.parametrize("case", STANDARDISED, ids=str)


class Plain(nn.Conv2d):
    """The convolution inside a standardised one: the same padding, no standardisation."""

    def __init__(self, module):
        super().__init__(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            dilation=module.dilation,
            groups=module.groups,
            bias=module.bias is not None,
        )
        self.double()
        self.padding = module.padding
        self.grows = getattr(module, "same_pad", False) or getattr(module, "pad", None)

    def forward(self, inputs):
        return super().forward(pad_to_ceiling(self, inputs) if self.grows else inputs)


def pad_to_ceiling(module, inputs):
    """Pad as much as ceil(size / stride) windows need, the odd zero at the end."""
    widths = []
    for dim in (1, 0):
        size, stride = inputs.shape[2 + dim], module.stride[dim]
        span = module.dilation[dim] * (module.kernel_size[dim] - 1) + 1
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        widths += [total // 2, total - total // 2]
    return F.pad(inputs, widths)


def rows_of(module, inputs):
    """Rows written out; a standardised weight reads them without their mean."""
    if not hasattr(module, "eps"):
        return rows(module, inputs)
    written = rows(Plain(module), inputs)
    fan_in = module.weight[0].numel()
    centred = written[..., :fan_in] - written[..., :fan_in].mean(-1, keepdim=True)
    return torch.cat([centred, written[..., fan_in:]], dim=-1)


@cases
def test_sketch_trace_and_means_are_those_of_the_rows(case):
    module, inputs = case.module(), case.inputs()
    (adapter,) = find_adapters(module)
    call, bias, expected = Call((inputs,), {}), module.bias is not None, rows_of(module, inputs)
    linear_map = adapter.linear_map(module, call, adapter.inputs(module, call), bias=bias)
    probes = randn(n_groups(module), expected.shape[-1], 4, seed=1)
    by_sample = expected.reshape(*expected.shape[:1], linear_map.samples, -1, probes.shape[1])

    assert list(linear_map.rows) == [expected.shape[1]] * n_groups(module)
    assert error(linear_map.sketch(probes), expected.mT @ expected @ probes) < 1e-12
    assert error(linear_map.squared_norm(), expected.square().sum((1, 2))) < 1e-12
    assert error(linear_map.covariance(), expected.mT @ expected) < 1e-12
    assert error(linear_map.row_sum(), expected.sum(1)) < 1e-11
    assert error(linear_map.sample_means(), by_sample.mean(2)) < 1e-12


@cases
def test_a_step_is_the_gradient_times_the_inverse(case):
    module, inputs = case.module(), case.inputs()
    optimizer, before = exact(module), joint_value(module)
    assert not optimizer.skipped
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows_of(module, inputs)), 0.1)
    actual = optimizer.inverse("").reshape(expected.shape)
    assert error(actual, expected) < 1e-9
    moved = before - joint_value(module)
    assert error(moved, 0.1 * joint_gradient(module) @ expected) < 1e-9


@standardised
def test_a_step_leaves_the_mean_of_a_standardised_filter(case):
    """As the gradient does: the mean has no effect on the output."""
    module, inputs = case.module(), case.inputs()
    optimizer, before = plain(module, rank=3), module.weight.detach().mean((1, 2, 3))
    backward(module, inputs)
    optimizer.step()
    assert error(module.weight.detach().mean((1, 2, 3)), before) < 1e-10


@standardised
def test_the_gradient_is_that_of_the_centred_rows_up_to_the_filter_itself(case):
    """The scale of an output and its std, which depends on the filter, are all that is left out."""
    module, inputs = case.module(), case.inputs()
    outputs = module(inputs)
    gradient = randn(*outputs.shape, seed=2)
    outputs.backward(gradient)

    inner = Plain(module)
    inner(inputs).backward(gradient)
    linear = centred(inner.weight.grad.flatten(1))
    filters = centred(module.weight.detach().flatten(1))
    scale = getattr(module, "gain", torch.ones(6)).detach().reshape(-1, 1)
    scale = scale * getattr(module, "scale", 1.0)
    std = (filters.square().mean(1, keepdim=True) + module.eps).sqrt()
    along = (linear * filters).mean(1, keepdim=True) / std.square() * filters
    assert error(module.weight.grad.flatten(1), scale / std * (linear - along)) < 1e-10


def centred(matrix):
    return matrix - matrix.mean(1, keepdim=True)


def test_two_sided_curvatures_skip_a_standardised_weight():
    optimizer = KFAC(nn.Sequential(ScaledStdConv2d(2, 3, 3), nn.Conv2d(3, 2, 1)))
    assert set(optimizer.layers) == {"1"}
    assert optimizer.skipped["0"] == "the gradient of its output can't be observed"
