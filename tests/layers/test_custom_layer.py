"""The documented example of a layer of one's own is preconditioned as written out."""

import importlib.util
from pathlib import Path

import pytest
import torch

from nysact.layers import registry

from ..oracles import damped_inverse, error, randn
from ..steps import backward, plain, values

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_layer.py"
BLOCKS, IN, OUT = 3, 4, 2


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(registry, "_ADAPTERS", dict(registry._ADAPTERS))
    spec = importlib.util.spec_from_file_location("custom_layer", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def block_rows(inputs, bias):
    """``(blocks, rows, d)``: columns of the input, block by block."""
    flat = inputs.reshape(-1, BLOCKS * IN)
    rows = torch.stack([flat[:, IN * b : IN * (b + 1)] for b in range(BLOCKS)])
    return torch.cat([rows, torch.ones_like(rows[..., :1])], dim=-1) if bias else rows


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(9, 12), (3, 5, 12), (12,)])
def test_each_block_has_its_own_inverse_and_moves_by_it(example, shape, bias):
    layer = example.BlockLinear(BLOCKS, IN, OUT).double()
    layer.bias.requires_grad_(bias)
    optimizer = plain(layer, rank=100, damping=0.3)
    assert list(optimizer.layers) == [""]
    before, inputs = values(layer), randn(*shape)
    backward(layer, inputs)
    optimizer.step()

    rows = block_rows(inputs, bias)
    expected = damped_inverse(rows.mT @ rows / rows.shape[1], 0.3)
    assert error(optimizer.inverse(""), expected) < 1e-12
    G = layer.weight.grad.mT
    if bias:
        G = torch.cat([G, layer.bias.grad.unsqueeze(-1)], dim=-1)
    moved = 0.1 * G @ expected
    assert error(before["weight"] - layer.weight.detach(), moved[..., :IN].mT) < 1e-12
    if bias:
        assert error(before["bias"] - layer.bias.detach(), moved[..., IN]) < 1e-12


def test_its_gradient_lies_in_the_span_of_the_rows_of_its_block(example):
    layer, inputs = example.BlockLinear(BLOCKS, IN, OUT).double(), randn(2, BLOCKS * IN)
    backward(layer, inputs)
    (adapter,) = registry.find_adapters(layer)
    G = adapter.to_matrix(adapter.geometry(layer), layer.weight.grad)
    rows = block_rows(inputs, bias=False)
    assert error(G @ torch.linalg.pinv(rows) @ rows, G) < 1e-12


def test_the_example_trains(example, capsys):
    losses = example.train()
    assert "preconditioned: 0, 2" in capsys.readouterr().out
    assert losses[-1] < 0.5 * losses[0]
