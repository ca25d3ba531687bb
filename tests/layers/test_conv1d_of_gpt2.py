"""GPT-2's Conv1D, a linear layer that stores its weight inputs first, known by its name alone."""

import pytest
import torch

from ..oracles import damped_inverse, error, randn
from ..steps import backward, plain, values

pytest.importorskip("transformers")

from transformers.pytorch_utils import Conv1D

OUT, IN = 6, 4


@pytest.mark.parametrize("shape", [(4,), (9, 4), (3, 5, 4)])
def test_it_moves_by_its_gradient_times_the_inverse(shape):
    layer, inputs = Conv1D(OUT, IN).double(), randn(*shape)
    assert layer.weight.shape == (IN, OUT)
    optimizer, before = plain(layer, rank=100, damping=0.3), values(layer)
    backward(layer, inputs)
    optimizer.step()

    rows = inputs.reshape(-1, IN)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    expected = damped_inverse(rows.T @ rows / len(rows), 0.3)
    assert error(optimizer.inverse(""), expected) < 1e-12
    # Stored inputs first, the weight lies above the bias and the inverse acts from the left.
    gradient = torch.cat([layer.weight.grad, layer.bias.grad.unsqueeze(0)])
    moved = torch.cat(
        [before["weight"] - layer.weight.detach(), (before["bias"] - layer.bias.detach())[None]]
    )
    assert error(moved, 0.1 * expected @ gradient) < 1e-12


def test_a_linear_layer_with_the_transposed_weight_learns_the_same():
    gpt2, linear = Conv1D(OUT, IN).double(), torch.nn.Linear(IN, OUT).double()
    with torch.no_grad():
        linear.weight.copy_(gpt2.weight.T)
        linear.bias.copy_(gpt2.bias)
    for layer in (gpt2, linear):
        optimizer = plain(layer, rank=2, sketch="subspace")
        for seed in range(3):
            optimizer.zero_grad()
            backward(layer, randn(9, IN, seed=seed), seed=seed)
            optimizer.step()
    assert error(gpt2.weight.detach().T, linear.weight.detach()) < 1e-12
    assert error(gpt2.bias.detach(), linear.bias.detach()) < 1e-12
