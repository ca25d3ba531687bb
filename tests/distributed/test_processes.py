"""Which processes share a batch: found from the model, given, or asked for."""

from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_module, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from nysact import NysAct, Preconditioner
from nysact.distributed import find_processes, processes_pending
from nysact.distributed.groups import group_of_mesh

from ..oracles import randn
from .training import (
    SETTINGS,
    alone,
    batch,
    distance,
    grid,
    learned,
    network,
    same,
    train,
    whole,
    wrap,
)


def raw_model():
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    before = [param.detach().clone() for param in model.parameters()]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"2 processes.*process_group=torch.distributed.group"):
            train(model, optimizer, [0], sizes=[4, 4])
    assert all(map(torch.equal, before, model.parameters()))
    with pytest.raises(TypeError, match="process_group='world'"):
        NysAct(network(), process_group="world")
    with pytest.raises(TypeError, match="process_group=3"):
        Preconditioner(network(), process_group=[3])
    return True


def test_a_model_that_says_nothing_of_other_processes_is_asked_about_them(two):
    assert two(raw_model) == [True, True]


def test_without_other_processes_every_answer_does():
    assert dist.group.WORLD is None
    assert not NysAct(network(), process_group=dist.group.WORLD)._processes
    assert not NysAct(network(), process_group=False)._processes
    with pytest.raises(TypeError, match="process_group='nccl'"):
        NysAct(network(), process_group="nccl")


def early():
    """Built before the process knew of others, as where a framework starts them later."""
    with mock.patch.object(dist, "is_initialized", return_value=False):
        model = network()
        optimizer = NysAct(model, **SETTINGS)
        undecided = NysAct(network(), process_group=False)
    wrapped = DistributedDataParallel(model)
    before = [param.detach().clone() for param in model.parameters()]
    with pytest.raises(RuntimeError, match="after the optimizer was built and runs 2 processes"):
        train(wrapped, optimizer, [0], sizes=[4, 4])
    undecided.step()
    return all(map(torch.equal, before, model.parameters()))


def test_processes_that_come_after_the_optimizer_are_refused(two):
    assert two(early) == [True, True]


def wrapped_late(how):
    """The processes as found before the model is wrapped, in a forward after that, and behind."""
    model, found = network(), []

    def look(*_):
        ranks = () if processes_pending(model, None) else find_processes(model, None).ranks
        found.append(sorted(ranks))

    look()
    wrapped = wrap(model, how)
    model[3].register_forward_pre_hook(look)
    wrapped(batch(0)[0])
    look()
    with pytest.raises(ValueError, match=r"2 processes.*process_group=torch.distributed.group"):
        find_processes(network(), None)
    return found


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_model_that_is_wrapped_late_tells_its_processes_in_its_forward(two, how):
    # fully_shard marks the model itself, DistributedDataParallel shows in its forward alone.
    expected = [[], [0, 1], [] if how == "ddp" else [0, 1]]
    assert two(wrapped_late, how) == [expected, expected]


def forward_of_another():
    """A wrapper whose forward runs says nothing of models outside it."""
    wrapped, other, found = wrap(network(), "ddp"), network(), []
    wrapped.module[3].register_forward_pre_hook(
        lambda *_: found.append(processes_pending(other, None))
    )
    wrapped(batch(0)[0])
    return found


def test_the_forward_of_another_model_tells_nothing(two):
    assert two(forward_of_another) == [[True], [True]]


def test_without_torch_distributed_nothing_is_pending():
    assert not processes_pending(network(), None)


def too_few():
    mine = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    for how in ("ddp", "fsdp"):
        with pytest.raises(ValueError, match=r"over the ranks \[0, 1\], whose copies would drift"):
            NysAct(wrap(network(), how), process_group=mine)
    with pytest.raises(ValueError, match="is empty, expected at least one ProcessGroup"):
        NysAct(network(), process_group=[])
    with pytest.raises(ValueError, match="more often than others"):
        NysAct(network(), process_group=[dist.group.WORLD, dist.group.WORLD])
    return True


def test_groups_that_would_let_replicas_drift_are_refused(two):
    assert two(too_few) == [True, True]


class Offset(nn.Module):
    """A small model whose batches are ``DTensor``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.double()

    def forward(self, inputs):
        return self.last(torch.tanh(self.first(inputs)))


def replicated(group):
    """Replicas by DTensor: weights on all processes, and a batch that is spread over them."""
    mesh = init_device_mesh("cpu", (2,))
    model = distribute_module(Offset(), mesh)
    options = {"process_group": mesh} if group else {}
    optimizer = NysAct(model, **options, **SETTINGS)
    for step in range(6):
        inputs = distribute_tensor(randn(8, 6, seed=step), mesh, [Shard(0)])
        optimizer.zero_grad()
        if not group:
            with pytest.raises(ValueError, match=r"layer 'first'.*\[0, 1\].*process_group="):
                model(inputs)
            return None
        model(inputs).square().sum(1).mean().backward()
        optimizer.step()
    return {name: whole(param.detach()) for name, param in model.named_parameters()}


def unreplicated():
    model = Offset()
    optimizer = NysAct(model, **SETTINGS)
    for step in range(6):
        optimizer.zero_grad()
        model(randn(8, 6, seed=step)).square().sum(1).mean().backward()
        optimizer.step()
    return {name: param.detach() for name, param in model.named_parameters()}


def test_spread_batches_of_weights_on_all_processes_need_a_group(two):
    assert two(replicated, False) == [None, None]
    first, second = two(replicated, True)
    assert same(first, second)
    assert distance(first, unreplicated()) < 1e-10


def without_backend():
    """As NCCL is for weights that are offloaded to the processor."""
    optimizer = NysAct(network(), process_group=dist.new_group(backend="cuda:gloo"), **SETTINGS)
    with pytest.raises(ValueError, match=r"device 'cpu'.*'cuda:gloo'.*cpu:gloo,cuda:nccl"):
        optimizer.consolidate()
    return True


def test_a_group_without_a_backend_for_the_weights_device_is_named(two):
    assert two(without_backend) == [True, True]


def meshes():
    """Two optimizers of models on one mesh need one group."""
    mesh = init_device_mesh("cpu", (2, 1, 1), mesh_dim_names=("far", "a", "b"))["a", "b"]
    return group_of_mesh(mesh) is group_of_mesh(mesh)


def test_a_mesh_of_several_dimensions_gets_one_group(two):
    assert two(meshes) == [True, True]


def explicit(kind):
    """Gradients are averaged by hand, as some frameworks do."""
    model = network()
    world = dist.group.WORLD
    group = {"group": world, "mesh": init_device_mesh("cpu", (2,)), "groups": [world]}[kind]
    optimizer = NysAct(model, process_group=group, **SETTINGS)

    class Averaged:
        zero_grad = optimizer.zero_grad

        def step(self):
            for param in model.parameters():
                dist.all_reduce(param.grad)
                param.grad /= 2
            optimizer.step()

    train(model, Averaged(), range(6), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.parametrize("kind", ["group", "mesh", "groups"])
def test_processes_may_be_given(two, kind):
    first, second = two(explicit, kind)
    assert same(first, second)
    assert distance(first, alone(6)) < 1e-10


def apart():
    """Each process trains a model of its own."""
    model = network(seed=dist.get_rank())
    optimizer = NysAct(model, process_group=False, **SETTINGS)
    train(model, optimizer, range(3 + dist.get_rank()))
    return learned(optimizer)


def test_processes_that_share_nothing_are_left_alone(two):
    first, _ = two(apart)
    assert same(first, alone(3))


def nested():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = DistributedDataParallel(network())

        def forward(self, inputs):
            return self.inner(inputs)

    compiled = torch.compile(DistributedDataParallel(network()), backend="eager")
    return [NysAct(model)._processes.ranks for model in (Wrapper(), compiled)]


def test_wrapped_models_inside_others_are_found(two):
    assert two(nested) == [[{0, 1}, {0, 1}]] * 2


def disagreeing():
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, seed=dist.get_rank(), **SETTINGS)
    before = [param.detach().clone() for param in model.parameters()]
    with pytest.raises(ValueError, match=r"'seed': 0.*rank 1 has.*'seed': 1"):
        train(model, optimizer, [0], sizes=[4, 4])
    return all(map(torch.equal, before, model.parameters()))


def test_settings_that_differ_are_refused_before_anything_moves(two):
    assert two(disagreeing) == [True, True]


def disagreeing_first():
    optimizer = NysAct(wrap(network(), "ddp"), rank=3 + dist.get_rank())
    with pytest.raises(ValueError, match=r"rank=3.*rank 1 has.*rank=4"):
        optimizer.consolidate()
    return True


def test_settings_are_compared_before_the_first_sum_of_any_kind(two):
    assert two(disagreeing_first) == [True, True]


def silent(which):
    """A process that doesn't listen, or none, takes part in every sum all the same."""
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(5), sizes=[4, 4])
    before = optimizer.inverse("7")
    if which == "both" or dist.get_rank() == 0:
        optimizer.remove_hooks()
    train(model, optimizer, range(5, 10), sizes=[4, 4])
    age = optimizer.diagnostics()["7"]["refresh_age"]
    optimizer.consolidate()
    return learned(optimizer), age, torch.equal(before, optimizer.inverse("7"))


@pytest.mark.parametrize("which", ["one", "both"])
def test_a_process_whose_hooks_are_gone_holds_up_no_other(two, which):
    (first, age, kept), (second, *_) = two(silent, which)
    assert same(first, second)
    assert (age, kept) == ((5, True) if which == "both" else (1, False))


def hierarchical(nodes):
    mesh, groups = grid()
    model = DistributedDataParallel(network())
    group = groups if nodes == "groups" else mesh
    optimizer = NysAct(model, process_group=group, **SETTINGS)
    train(model, optimizer, range(8), sizes=[3, 1, 2, 2])
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", ["groups", "mesh"])
def test_hierarchical_groups_add_up_to_all(four, nodes):
    first, *others = four(hierarchical, nodes)
    assert all(same(first, other) for other in others)
    assert distance(first, alone(8)) < 1e-10


def far_apart():
    """The odd one out is in another node than most."""
    model = DistributedDataParallel(network())
    seed = int(dist.get_rank() == 3)
    optimizer = NysAct(model, process_group=grid()[1], seed=seed, **SETTINGS)
    with pytest.raises(ValueError, match=r"rank 0 has.*'seed': 0.*rank 3 has.*'seed': 1"):
        train(model, optimizer, [0], sizes=[3, 1, 2, 2])
    return optimizer._processes.ranks, optimizer._processes.index


@pytest.mark.slow
def test_differences_between_nodes_are_refused_on_all_of_them(four):
    assert four(far_apart) == [({0, 1, 2, 3}, rank) for rank in range(4)]


def half():
    """Two pairs of processes, each with data of its own."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    pair = dist.get_rank() // 2
    model = DistributedDataParallel(network(seed=pair), process_group=pairs[pair])
    optimizer = NysAct(model, share_refresh=True, **SETTINGS)
    train(model, optimizer, range(6), sizes=[4, 4, 4, 4], samples=16)
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.slow
def test_the_group_of_a_wrapped_model_is_the_one_that_sums(four):
    one, two, three, last = four(half)
    assert same(one, two)
    assert same(three, last)
    assert not same(one, three)
