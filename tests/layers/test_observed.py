"""Any layer, dtype and batch, observed by the optimizer's hooks and held against brute force."""

import pytest
import torch
from hypothesis import given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nysact import Preconditioner
from nysact.engine.sampling import spread

pytest.importorskip("transformers")

from .subjects import subjects

# The share of the largest value that rounding may take, of a statistic and of a gradient.
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (1e-5, 1e-2),
}


def step(subject, module, optimizer, dtype, calls, seed):
    """Forwards and one backward; returns the inputs of the calls and the gradients."""
    optimizer.zero_grad()
    inputs = [subject.inputs(dtype, seed + call) for call in range(calls)]
    torch.stack([subject.call(module, x).square().sum() for x in inputs]).sum().backward()
    gradients = {weight.name: weight.matrix(module) for weight in subject.weights(module)}
    optimizer.step()
    return inputs, gradients


def expected_covariances(subject, module, inputs, stride, start):
    """Second moments of the rows of one sample in stride of each call, weighted by the call."""
    products, counts = {}, {}
    for tensors in inputs:
        total = subject.samples(tensors)
        count = -(-total // stride)
        chosen = spread(total, count, start, torch.device("cpu"))
        for name, blocks in subject.rows(module, tensors, chosen).items():
            product = total / count * torch.stack([r.T @ r for r in blocks])
            products[name] = products.get(name, 0) + product
            rows = torch.tensor([len(r) * total / count for r in blocks]).double()
            counts[name] = counts.get(name, 0) + rows
    return {name: product / counts[name][:, None, None] for name, product in products.items()}


def close(actual, expected, scale, tolerance):
    assert actual.shape == expected.shape
    return bool((actual.double() - expected).norm() <= tolerance * scale)


def check(subject, dtype, rank, calls, stride):
    note(str(subject))
    module = subject.module(dtype)
    optimizer = Preconditioner(
        module, rank=rank, cov_interval=1, inv_interval=2, subsample=stride, stat_decay=0
    )
    weights = subject.weights(module)
    assert list(optimizer.layers) == [weight.name for weight in weights]
    statistic, gradient = TOLERANCES[dtype]

    # The first step's statistics go into the first factors, the second's stay to be read: without
    # memory (decay 0) they are that step's alone.
    step(subject, module, optimizer, dtype, calls, seed=0)
    probes = {w.name: optimizer.state[w.param]["basis"].clone() for w in weights}
    start = next(iter(optimizer.layers.values())).pending.window.start
    inputs, gradients = step(subject, module, optimizer, dtype, calls, seed=100)
    preconditioned = {weight.name: weight.matrix(module) for weight in weights}
    inverses = {weight.name: optimizer.inverse(weight.name).double() for weight in weights}

    covariances = expected_covariances(subject, module.double(), inputs, stride, start)
    for weight in weights:
        A, state = covariances[weight.name], optimizer.state[weight.param]
        Omega = probes[weight.name].double()
        if Omega.shape[-1] == A.shape[-1]:
            Omega = torch.eye(A.shape[-1], dtype=torch.float64).expand_as(A)
        assert state["sketch"].dtype == torch.promote_types(dtype, torch.float32)
        mass = state["rows"].double()
        assert close(state["sketch"] / mass[:, None, None], A @ Omega, A.norm(), statistic)
        trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)
        assert close(state["trace"] / mass, trace, trace.norm(), statistic)
        G, P = gradients[weight.name], inverses[weight.name].reshape(A.shape)
        assert close(preconditioned[weight.name], G @ P, (G @ P).norm(), gradient)


arguments = {
    "subject": subjects(),
    "dtype": st.sampled_from(list(TOLERANCES)),
    "rank": st.sampled_from([2, 1000]),
    "calls": st.integers(1, 2),
    "stride": st.integers(1, 3),
}


@given(**arguments)
@hypothesis_settings(max_examples=25)
def test_any_layer_is_sketched_and_preconditioned_as_written_out(**drawn):
    check(**drawn)


@pytest.mark.slow
@given(**arguments)
@hypothesis_settings(max_examples=1500)
def test_any_layer_is_sketched_and_preconditioned_as_written_out_at_length(**drawn):
    check(**drawn)
