"""Gradients accumulated over micro-batches: the update is that of their union."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact import NysAct

from .training import SETTINGS, assert_same, batches, dense, network, rows, train


def accumulate(model, optimizer, data, sizes):
    for inputs, targets in data:
        optimizer.zero_grad()
        for x, y in zip(inputs.split(sizes), targets.split(sizes), strict=True):
            (F.cross_entropy(model(x), y, reduction="sum") / len(targets)).backward()
        optimizer.step()


@pytest.mark.parametrize("settings", [{"rank": 4, "cov_interval": 2, "inv_interval": 4}, {}])
@pytest.mark.parametrize("sizes", [[4, 4, 4], [5, 7], [1, 9, 2]], ids=str)
def test_micro_batches_give_the_update_of_their_union(sizes, settings):
    data = batches(12, samples=12, dtype=torch.float64)
    whole, parts = network(dtype=torch.float64), network(dtype=torch.float64)
    # Where all samples count: "auto" would choose other ones of a part than of the whole.
    reference, optimizer = (NysAct(model, subsample=1, **settings) for model in (whole, parts))
    train(whole, reference, data)
    accumulate(parts, optimizer, data, sizes)
    assert_same(optimizer, reference, tolerance=1e-9)


def test_all_forwards_before_one_backward_count_too():
    data = rows(6, samples=9, dtype=torch.float64)
    whole, parts = dense(dtype=torch.float64), dense(dtype=torch.float64)
    reference, optimizer = NysAct(whole, **SETTINGS), NysAct(parts, **SETTINGS)
    train(whole, reference, data)
    for inputs, targets in data:
        optimizer.zero_grad()
        outputs = torch.cat([parts(inputs[:2]), parts(inputs[2:])])
        F.cross_entropy(outputs, targets).backward()
        optimizer.step()
    assert_same(optimizer, reference, tolerance=1e-9)


def test_a_micro_batch_that_leaves_a_layer_out_adds_nothing_to_it():
    """The second layer's statistics are those of the first micro-batch."""

    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(6, 6).double(), nn.Linear(6, 3).double()

        def forward(self, inputs, last=True):
            inner = self.first(inputs)
            return self.second(inner) if last else inner

    (x, _), (z, _) = rows(2, dtype=torch.float64)
    model = Optional()
    optimizer = NysAct(model, rank=9)
    model(x).sum().backward()
    model(z, last=False).sum().backward()
    with torch.no_grad():
        inner = F.pad(model.first(x), (0, 1), value=1.0)
    optimizer.step()
    expected = torch.linalg.inv(inner.T @ inner / len(inner) + torch.eye(7, dtype=torch.float64))
    torch.testing.assert_close(optimizer.inverse("second"), expected)
