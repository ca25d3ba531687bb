"""NysMuon in several processes: replicas, and matrices that are sharded."""

import pytest
import torch
from benchmarks.communication import Traffic
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from nysact import NysAdamW, NysMuon

from ..oracles import error, randn
from .test_fully_shard import INPUTS_FIRST, MODELS, by_outputs, sharded, unsharded
from .test_replicas import replica
from .training import (
    SETTINGS,
    alone,
    batch,
    distance,
    learned,
    loss_of,
    my_share,
    network,
    run,
    same,
    through_checkpoint,
    train,
    wrap,
)

STEPS = 6
FACES = [NysMuon, NysAdamW]
# AdamW divides by the size of a gradient, which makes rounding large where there is none.
OPTIONS = {**SETTINGS, "adamw_lr": 0.001}

# --- replicas --------------------------------------------------------------------------------


@pytest.mark.parametrize("share_refresh", [False, True])
@pytest.mark.parametrize("face", FACES)
def test_replicas_are_equal_bit_for_bit(two, face, share_refresh):
    assert same(*two(replica, "ddp", 20, (5, 3), build=face, share_refresh=share_refresh))


@pytest.mark.slow
@pytest.mark.parametrize("share_refresh", [False, True])
@pytest.mark.parametrize("how", ["ddp", "hsdp"])
def test_replicas_of_many_processes_are_equal_bit_for_bit(four, how, share_refresh):
    options = {"build": NysMuon, "share_refresh": share_refresh}
    one, two, three, last = four(replica, how, 20, (3, 1, 2, 2), **options)
    # Processes 0 and 2, and 1 and 3, hold the same rows under HSDP.
    assert same(one, three)
    assert same(two, last)
    assert same(one, two) == (how == "ddp")


@pytest.mark.parametrize("share_refresh", [False, True])
def test_replicas_move_as_one_process_does(two, share_refresh):
    first, second = two(run, "ddp", STEPS, build=NysMuon, share_refresh=share_refresh)
    assert same(first, second)
    assert distance(first, alone(STEPS, build=NysMuon)) < 1e-9


# --- shards ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_shards_of_every_kind_of_layer_move_as_the_whole_does(two, name):
    first, second = two(sharded, name, NysMuon, OPTIONS)
    assert same(first, second)
    assert distance(first, unsharded(name, NysMuon, OPTIONS)) < 1e-9


def test_weights_that_are_sharded_along_another_dimension_move_as_the_whole_does(two):
    first, second = two(sharded, "transposed", NysMuon, OPTIONS, by_outputs)
    assert same(first, second)
    assert "transposed" in INPUTS_FIRST
    assert distance(first, unsharded("transposed", NysMuon, OPTIONS)) < 1e-9


@pytest.mark.parametrize("face", FACES)
def test_a_sharded_network_moves_as_one_process_does(two, face):
    first, second = two(run, "fsdp", STEPS, build=face)
    assert same(first, second)
    assert distance(first, alone(STEPS, build=face)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fsdp", "hsdp"])
def test_shards_on_many_processes_move_as_one_process_does(four, how):
    first, *others = four(run, how, STEPS, build=NysMuon, sizes=(2, 2, 2, 2))
    assert all(same(first, other) for other in others)
    assert distance(first, alone(STEPS, build=NysMuon)) < 1e-9


def sent(how, share_refresh):
    model = wrap(network(), how)
    optimizer = NysMuon(model, share_refresh=share_refresh, **SETTINGS)
    for step in range(2):
        optimizer.zero_grad()
        inputs, targets = my_share(batch(step), [4, 4])
        loss_of(model(inputs), targets, 8).backward()
        with Traffic() as traffic:
            optimizer.step()
    states = [
        optimizer.state[param] for group in optimizer.param_groups for param in group["params"]
    ]
    momenta = [state["momentum_buffer"] for state in states if "momentum_buffer" in state]
    assert all(isinstance(each, DTensor) == (how == "fsdp") for each in momenta)
    held = [m.to_local() if how == "fsdp" else m for m in momenta]
    return dict(traffic.numbers), sum(m.numel() for m in momenta), sum(m.numel() for m in held)


def test_each_part_of_a_sharded_matrix_is_sent_once_there_and_once_back(two):
    answers = two(sent, "fsdp", None)
    back = 0
    for numbers, _, held in answers:
        assert list(numbers) == ["alltoall_base_"]
        there, returned = numbers["alltoall_base_"]
        assert there == held
        back += returned
    assert back == answers[0][1]


def test_shared_orthogonalisation_is_one_sum(two):
    for numbers, whole, _ in two(sent, "ddp", True):
        assert numbers == {"allreduce_": [whole]}
    assert [numbers for numbers, *_ in two(sent, "ddp", False)] == [{}, {}]


def resumed(path):
    first, second = (wrap(network(), "fsdp") for _ in range(2))
    optimizer, restored = NysMuon(first, **SETTINGS), NysMuon(second, **SETTINGS)
    train(first, optimizer, range(5), sizes=[4, 4])
    optimizer.consolidate()
    through_checkpoint(path, (first, optimizer), (second, restored))
    for model, chosen in ((first, optimizer), (second, restored)):
        train(model, chosen, range(5, 11), sizes=[4, 4])
        chosen.consolidate()
    return same(learned(restored), learned(optimizer))


def test_a_sharded_run_resumes_bit_for_bit(two, tmp_path):
    assert two(resumed, tmp_path) == [True, True]


# --- tensor parallel -------------------------------------------------------------------------


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.column, self.row, self.head = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)
        self.double()

    def forward(self, inputs):
        # fully_shard warns of views.
        return self.head(torch.tanh(self.row(torch.tanh(self.column(inputs))))).clone()


def parallel(mesh):
    plan = {"column": ColwiseParallel(), "row": RowwiseParallel()}
    return parallelize_module(Perceptron(), mesh, plan)


def trained(parallelised, steps, damping):
    model = parallel(init_device_mesh("cpu", (2,))) if parallelised else Perceptron()
    options = {**OPTIONS, "rank": 99, "damping": damping, "damping_scale": "absolute"}
    optimizer = NysMuon(model, [{"params": model.parameters(), "eps": 0.0}], **options)
    for step in range(steps):
        optimizer.zero_grad()
        model(randn(8, 6, seed=step)).square().sum().backward()
        optimizer.step()
    return {n: p for n, p in learned(optimizer).items() if n in dict(model.named_parameters())}


def test_tensor_parallel_matrices_are_orthogonalised_whole(two):
    # A row-wise layer learns from the inputs of each process apart, which endless damping hides.
    first, second = two(trained, True, STEPS, 1e12)
    assert same(first, second)
    assert distance(first, trained(False, STEPS, 1e12)) < 1e-8
    first, _ = two(trained, True, 1, 0.5)
    expected = trained(False, 1, 0.5)
    assert error(first["column.weight"], expected["column.weight"]) < 1e-9
    assert error(first["row.weight"], expected["row.weight"]) > 1e-3


def both_ways():
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = fully_shard(parallel(mesh["tp"]), mesh=mesh["dp"])
    with pytest.raises(ValueError, match=r"'column.weight'.*several dimensions.*update='adamw'"):
        NysMuon(model, **SETTINGS)
    NysAdamW(model, **SETTINGS)


@pytest.mark.slow
def test_matrices_that_are_split_both_ways_are_refused_with_the_remedy(four):
    four(both_ways)
