import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from nysact import NysAct
from nysact.experiments.devices import chosen_device, cpu_threads, state_bytes
from nysact.experiments.errors import ExperimentError


def stepped(optimizer, model):
    model(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    return optimizer


def test_state_bytes_of_sgd_and_adamw():
    model = nn.Linear(5, 3)  # 18 parameters of 4 bytes
    assert state_bytes(SGD(model.parameters(), lr=0.1)) == 0
    assert state_bytes(stepped(SGD(model.parameters(), lr=0.1, momentum=0.9), model)) == 18 * 4
    # AdamW also keeps a step count of 4 bytes for each of the two parameters.
    assert state_bytes(stepped(AdamW(model.parameters()), model)) == 2 * 18 * 4 + 2 * 4


def test_state_bytes_finds_nested_tensors_and_counts_views_each():
    model = nn.Linear(5, 3)
    optimizer = SGD(model.parameters(), lr=0.1)
    shared = torch.zeros(100, dtype=torch.float64)
    optimizer.state[model.weight] = {"a": shared[:10], "b": [shared[10:15], {"c": shared[15:16]}]}
    optimizer.state[model.bias] = {"step": 3, "name": "x"}
    assert state_bytes(optimizer) == 16 * 8


def test_state_bytes_of_nysact_hold_momentum_and_no_dense_matrix():
    model = nn.Linear(200, 3)
    optimizer = NysAct(model, rank=4, momentum=0.9)
    for _ in range(3):
        model(torch.randn(8, 200)).sum().backward()
        optimizer.step()
    size = state_bytes(optimizer)
    assert 603 * 4 < size < 200 * 200


def test_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before


def test_device_is_the_one_that_is_named():
    assert chosen_device("cpu") == torch.device("cpu")
    with pytest.raises(ExperimentError, match="--device toaster: not available"):
        chosen_device("toaster")
