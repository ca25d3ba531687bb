"""Every adapter's sketch, trace and weight layout, against rows that are written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from nysact.layers import Call, find_adapters

from ..cases import CONVOLUTIONS, LAYERS
from ..oracles import (
    as_matrix,
    error,
    forward,
    n_groups,
    outputs_by_row,
    randn,
    rows,
)
from .strategies import convolutions

every_layer = pytest.mark.parametrize("case", LAYERS, ids=str)


def adapter_of(module):
    (adapter,) = find_adapters(module)
    return adapter


def linear_map_of(case, module, inputs):
    adapter = adapter_of(module)
    call = Call((inputs,), case.call)
    return adapter.linear_map(module, call, adapter.inputs(module, call), bias=bias_of(module))


def bias_of(module):
    return module.bias is not None


def check_linear_map(case):
    module, inputs = case.module(), case.inputs()
    expected = rows(module, inputs, **case.call)
    linear_map = linear_map_of(case, module, inputs)
    probes = randn(n_groups(module), expected.shape[-1], 4, seed=1)

    by_sample = expected.reshape(*expected.shape[:1], linear_map.samples, -1, probes.shape[1])

    assert list(linear_map.rows) == [expected.shape[1]] * n_groups(module)
    assert error(linear_map.sketch(probes), expected.mT @ expected @ probes) < 1e-12
    assert error(linear_map.squared_norm(), expected.square().sum((1, 2))) < 1e-12
    assert error(linear_map.covariance(), expected.mT @ expected) < 1e-12
    assert error(linear_map.row_sum(), expected.sum(1)) < 1e-12
    assert error(linear_map.sample_means(), by_sample.mean(2)) < 1e-12


@every_layer
def test_sketch_trace_and_means_are_those_of_the_rows(case):
    check_linear_map(case)


@every_layer
def test_more_probes_than_inputs_give_the_whole_covariance(case):
    module, inputs = case.module(), case.inputs()
    expected = rows(module, inputs, **case.call)
    dim = expected.shape[-1]
    identity = torch.eye(dim, dtype=torch.float64).expand(n_groups(module), dim, dim)
    covariance = linear_map_of(case, module, inputs).sketch(identity)
    assert error(covariance, expected.mT @ expected) < 1e-12


@every_layer
def test_gradient_is_the_sum_over_rows_of_output_gradients_times_rows(case):
    module, inputs = case.module(), case.inputs()
    adapter = adapter_of(module)
    outputs = forward(module, inputs, **case.call)
    output_gradient = randn(*outputs.shape, seed=2)
    outputs.backward(output_gradient)

    by_row = outputs_by_row(module, output_gradient, inputs)
    expected = by_row @ rows(module, inputs, **case.call)
    geometry = adapter.geometry(module)
    actual = adapter.to_matrix(geometry, module.weight.grad)
    assert actual.shape == (geometry.groups, geometry.out_features, geometry.in_features)
    assert error(actual, expected[..., : geometry.in_features]) < 1e-12
    if bias_of(module):
        bias = module.bias.grad.reshape(geometry.groups, geometry.out_features)
        assert error(bias, expected[..., -1]) < 1e-12


@every_layer
def test_output_gradients_are_laid_out_as_the_rows_are(case):
    module, inputs = case.module(), case.inputs()
    adapter = adapter_of(module)
    outputs = forward(module, inputs, **case.call)
    gradient = randn(*outputs.shape, seed=2)
    expected = outputs_by_row(module, gradient, inputs).mT
    assert adapter.shows_output
    assert torch.equal(adapter.output_rows(module, gradient), expected)


@every_layer
def test_layout_as_matrices_round_trips(case):
    module = case.module()
    adapter = adapter_of(module)
    geometry = adapter.geometry(module)
    weight = module.weight.detach()
    matrix = adapter.to_matrix(geometry, weight)
    assert torch.equal(matrix, as_matrix(module, weight))
    assert torch.equal(adapter.from_matrix(geometry, matrix, weight.shape), weight)


@every_layer
def test_input_may_be_passed_by_name(case):
    module, inputs = case.module(), case.inputs()
    adapter = adapter_of(module)
    (by_name,) = adapter.inputs(module, Call((), {"input": inputs}))
    (by_place,) = adapter.inputs(module, Call((inputs,), {}))
    assert torch.equal(by_name, by_place)


def test_output_size_may_be_passed_by_place():
    module, inputs = nn.ConvTranspose1d(2, 3, 3, stride=2).double(), randn(2, 2, 4)
    adapter = adapter_of(module)
    maps = [
        adapter.linear_map(module, call, (inputs,), bias=True)
        for call in (Call((inputs, (10,)), {}), Call((inputs,), {"output_size": (10,)}))
    ]
    assert maps[0].rows == maps[1].rows == [20]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_fewer_samples_are_a_map_of_their_own(case):
    module, inputs = case.module(), case.inputs()
    adapter = adapter_of(module)
    call = Call((inputs,), {})
    (samples,) = adapter.inputs(module, call)
    fewer = adapter.linear_map(module, call, (samples[:1],), bias=bias_of(module))
    expected = rows(module, samples[:1])
    probes = randn(n_groups(module), expected.shape[-1], 2, seed=1)
    assert error(fewer.sketch(probes), expected.mT @ expected @ probes) < 1e-12


@every_layer
def test_positions_are_at_least_one_and_about_the_rows_of_a_sample(case):
    module, inputs = case.module(), case.inputs()
    adapter = adapter_of(module)
    samples = adapter.inputs(module, Call((inputs,), {}))
    positions = adapter.positions(module, samples)
    exact = rows(module, inputs, **case.call).shape[1] // samples[0].shape[0]
    assert positions >= 1
    if isinstance(module, nn.Linear):
        assert positions == exact
    else:
        assert exact / 4 <= positions <= exact * 12


def test_float32_sketch_agrees_with_float64():
    module = nn.Conv2d(8, 4, 3, padding=1)
    inputs = randn(16, 8, 12, 12)
    probes = randn(1, 73, 5, seed=1)
    adapter = adapter_of(module)
    exact, single = (
        adapter.linear_map(module, Call((x,), {}), (x,), bias=True).sketch(probes.to(x.dtype))
        for x in (inputs, inputs.float())
    )
    assert error(single.double(), exact) < 1e-5


def test_a_traced_map_leaves_no_fake_tensor_for_real_ones():
    module, inputs = nn.Conv2d(2, 3, 3, stride=2).double(), randn(2, 2, 17, 19)
    adapter = adapter_of(module)

    def squared_norm(x):
        return adapter.linear_map(module, Call((x,), {}), (x,), bias=True).squared_norm()

    make_fx(squared_norm, tracing_mode="fake")(inputs)
    assert error(squared_norm(inputs), rows(module, inputs).square().sum((1, 2))) < 1e-12


# --- any option ------------------------------------------------------------------------------


@given(convolutions())
@hypothesis_settings(max_examples=60)
def test_sketch_and_trace_of_any_convolution(case):
    check_linear_map(case)


@pytest.mark.slow
@given(convolutions())
@hypothesis_settings(max_examples=3000)
def test_sketch_and_trace_of_any_convolution_at_length(case):
    check_linear_map(case)
