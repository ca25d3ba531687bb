"""Column-wise layers as they are; row-wise ones with the covariance of the inputs that lie here."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from nysact import NysAct

from ..oracles import covariance, damped_inverse, error, randn, rows
from .training import learned, same, through_checkpoint, whole

EXACT = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "rank": 99, "damping": 0.5}
OPTIONS = {**EXACT, "cov_interval": 1, "inv_interval": 2, "subsample": 1}


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.column, self.row = nn.Linear(6, 8), nn.Linear(8, 3)
        self.double()

    def forward(self, inputs):
        # fully_shard warns of views.
        return self.row(torch.tanh(self.column(inputs))).clone()


def parallel(mesh):
    return parallelize_module(
        Perceptron(), mesh, {"column": ColwiseParallel(), "row": RowwiseParallel()}
    )


def step(model, optimizer, seed, share=None):
    inputs, scale = randn(8, 6, seed=seed), 1
    if share is not None:
        place, count = share
        inputs, scale = inputs.chunk(count)[place], count
    optimizer.zero_grad()
    (model(inputs).square().sum() / 8 * scale).backward()
    optimizer.step()


def expected():
    """The parameters after one step by the dense formulas, block by block for the row-wise."""
    model, inputs = Perceptron(), randn(8, 6)
    hidden = torch.tanh(model.column(inputs)).detach()
    (model(inputs).square().sum() / 8).backward()
    column, row = model.column, model.row
    joint = torch.cat([column.weight.grad, column.bias.grad.unsqueeze(1)], dim=1)
    joint = joint @ damped_inverse(covariance(rows(column, inputs)), 0.5)[0]
    blocks = [
        gradient @ damped_inverse(block.T @ block / 8, 0.5)
        for gradient, block in zip(row.weight.grad.chunk(2, 1), hidden.chunk(2, 1), strict=True)
    ]
    moves = {
        "column.weight": joint[:, :-1],
        "column.bias": joint[:, -1],
        "row.weight": torch.cat(blocks, dim=1),
        "row.bias": row.bias.grad,
    }
    return {n: p.detach() - 0.1 * moves[n] for n, p in model.named_parameters()}


def one_step():
    model = parallel(init_device_mesh("cpu", (2,)))
    optimizer = NysAct(model, **OPTIONS)
    assert not optimizer._processes
    step(model, optimizer, 0)
    return {name: whole(param.detach()) for name, param in model.named_parameters()}


def test_a_step_is_that_of_the_dense_formulas(two):
    first, second = two(one_step)
    assert same(first, second)
    for name, value in expected().items():
        assert error(first[name], value) < 1e-12, name


def shown():
    model = parallel(init_device_mesh("cpu", (2,)))
    optimizer = NysAct(model, **OPTIONS)
    states = []
    for seed in range(3):
        step(model, optimizer, seed)
        states.append(dict(optimizer.state[model.row.weight]))
    first, *others = states
    return all(value is other[name] for other in others for name, value in first.items())


def test_the_blocks_are_put_together_once(two):
    assert two(shown) == [True, True]


def resumed(path):
    mesh = init_device_mesh("cpu", (2,))
    model, fresh = parallel(mesh), parallel(mesh)
    optimizer, restored = NysAct(model, **OPTIONS), NysAct(fresh, **OPTIONS)
    for seed in range(4):
        step(model, optimizer, seed)
    through_checkpoint(path, (model, optimizer), (fresh, restored))
    for seed in range(4, 9):
        step(model, optimizer, seed)
        step(fresh, restored, seed)
    assert same(learned(restored), learned(optimizer))
    return learned(optimizer)["row.weight.sketch"].shape


def test_the_blocks_of_a_row_wise_layer_are_saved_apart(two, tmp_path):
    assert two(resumed, tmp_path) == [(2, 4, 4)] * 2


def both_ways():
    """The same on a mesh of both kinds of processes, and on tensor-parallel ones alone."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    data, apart = parallel(mesh["tp"]), parallel(mesh["tp"])
    fully_shard(data, mesh=mesh["dp"])
    sharded = NysAct(data, **OPTIONS)
    plain = NysAct(apart, process_group=False, **OPTIONS)
    for seed in range(5):
        step(data, sharded, seed, (dist.get_rank(mesh.get_group("dp")), 2))
        step(apart, plain, seed)
    sharded.consolidate()
    pairs = zip(data.parameters(), apart.parameters(), strict=True)
    return [error(whole(one.detach()), whole(other.detach())) for one, other in pairs]


@pytest.mark.slow
def test_data_parallel_groups_of_tensor_parallel_processes_learn_from_the_union(four):
    for errors in four(both_ways):
        assert max(errors) < 1e-10


def ambiguous():
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = parallel(mesh["tp"])
    unknown = NysAct(model)  # A wrapper could still tell, until the first step.
    with pytest.raises(ValueError, match="unknown which of them share"):
        step(model, unknown, 0)
    model = parallel(mesh["tp"])
    optimizer = NysAct(model, process_group=mesh["dp"], **OPTIONS)
    for seed in range(3):
        step(model, optimizer, seed)
    return optimizer._processes.ranks


@pytest.mark.slow
def test_which_processes_share_batches_is_asked_where_a_mesh_leaves_it_open(four):
    assert four(ambiguous) == [{0, 2}, {1, 3}, {0, 2}, {1, 3}]
