"""Attention's projections: statistics of query, key and value, against rows written out."""

import pytest
import torch
from torch import nn

from nysact import Call
from nysact.layers import find_adapters

from ..oracles import damped_inverse, error, randn
from ..steps import plain, values

EMBED = 6


def attention(**options):
    torch.manual_seed(0)
    return nn.MultiheadAttention(EMBED, 2, **options).double()


def sequences(*lengths, batch_first, sizes=(EMBED, EMBED, EMBED)):
    return [
        randn(*((3, n) if batch_first else (n, 3)), size, seed=seed)
        for seed, (n, size) in enumerate(zip(lengths, sizes, strict=True))
    ]


def covariance_of(tensor, bias):
    rows = tensor.reshape(-1, tensor.shape[-1])
    if bias:
        rows = torch.cat([rows, torch.ones(len(rows), 1).double()], dim=1)
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_three_projections_are_three_groups(bias, batch_first):
    module = attention(bias=bias, batch_first=batch_first)
    inputs = sequences(4, 5, 5, batch_first=batch_first)
    optimizer = plain(module, rank=100, damping=0.2)
    assert set(optimizer.layers) == {"", "out_proj"}
    before = values(module)
    module(*inputs)[0].square().sum().backward()
    optimizer.step()

    expected = torch.stack([damped_inverse(covariance_of(x, bias), 0.2) for x in inputs])
    assert error(optimizer.inverse(""), expected) < 1e-11
    G = module.in_proj_weight.grad.reshape(3, EMBED, EMBED)
    if bias:
        G = torch.cat([G, module.in_proj_bias.grad.reshape(3, EMBED, 1)], dim=-1)
    moved = 0.1 * G @ expected
    actual = (before["in_proj_weight"] - module.in_proj_weight.detach()).reshape(3, EMBED, EMBED)
    assert error(actual, moved[..., :EMBED]) < 1e-11
    if bias:
        actual = before["in_proj_bias"] - module.in_proj_bias.detach()
        assert error(actual, moved[..., EMBED].flatten()) < 1e-11


def test_a_call_whose_two_outputs_are_used_counts_once():
    module = attention(bias=False)
    both, one = (sequences(4, 5, 5, batch_first=False, sizes=(EMBED,) * 3) for _ in range(2))
    one = [tensor + 1 for tensor in one]
    optimizer = plain(module, rank=100, damping=0.2)
    outputs, weights = module(*both)
    loss = outputs.square().sum() + weights.square().sum()
    (loss + module(*one)[0].square().sum()).backward()
    optimizer.step()
    pooled = [torch.cat(pair) for pair in zip(both, one, strict=True)]
    expected = torch.stack([damped_inverse(covariance_of(x, False), 0.2) for x in pooled])
    assert error(optimizer.inverse(""), expected) < 1e-11


@pytest.mark.parametrize("batch_first", [False, True])
def test_projections_stored_apart_are_layers_of_their_own(batch_first):
    module = attention(kdim=4, vdim=5, batch_first=batch_first)
    inputs = sequences(4, 7, 7, batch_first=batch_first, sizes=(EMBED, 4, 5))
    optimizer = plain(module, rank=100, damping=0.2)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    assert set(optimizer.layers) == {*names, "out_proj"}
    before = values(module)
    module(*inputs)[0].square().sum().backward()
    optimizer.step()
    for name, tensor in zip(names, inputs, strict=True):
        expected = damped_inverse(covariance_of(tensor, bias=False), 0.2)
        assert error(optimizer.inverse(name), expected) < 1e-11
        moved = before[name] - getattr(module, name).detach()
        assert error(moved, 0.1 * getattr(module, name).grad @ expected) < 1e-11
    moved = before["in_proj_bias"] - module.in_proj_bias.detach()
    assert error(moved, 0.1 * module.in_proj_bias.grad) < 1e-12


@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_put_samples_first_and_may_be_unbatched_or_named(batch_first):
    module = attention(batch_first=batch_first)
    adapter, _ = find_adapters(module)
    inputs = sequences(4, 5, 5, batch_first=batch_first)
    by_place = adapter.inputs(module, Call(inputs, {}))
    named = dict(zip(["query", "key", "value"], inputs, strict=True))
    by_name = adapter.inputs(module, Call((), named))
    assert [x.shape[0] for x in by_place] == [3, 3, 3]
    assert all(torch.equal(a, b) for a, b in zip(by_place, by_name, strict=True))
    vectors = [randn(4, EMBED) for _ in range(3)]
    assert [x.shape for x in adapter.inputs(module, Call(vectors, {}))] == [(1, 4, EMBED)] * 3


def test_a_transformers_layer_is_preconditioned_throughout():
    layer = nn.TransformerEncoderLayer(EMBED, 2, 8, dropout=0.0, batch_first=True).double()
    optimizer = plain(layer, rank=3)
    layers = {"self_attn", "self_attn.out_proj", "linear1", "linear2"}
    assert set(optimizer.layers) == layers
    layer(randn(3, 4, EMBED)).square().sum().backward()
    optimizer.step()
    ages = {name: known["refresh_age"] for name, known in optimizer.diagnostics().items()}
    assert ages == dict.fromkeys(layers, 0)
