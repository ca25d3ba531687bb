"""Which processes share a batch: found from the model, given, or asked for."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, Preconditioner
from nysact.distributed.sharing import assign, pays

from ..oracles import randn
from .training import SETTINGS, alone, distance, learned, network, same, train, wrap


def raw_model():
    with pytest.raises(ValueError, match=r"2 processes.*process_group=torch.distributed.group"):
        NysAct(network())
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
    """Sums within a node first, and across nodes then."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("across", "within"))
    groups = [mesh.get_group("within"), mesh.get_group("across")]
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


# --- who computes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "options", "shared"),
    [
        (NysAct, {"rank": 10}, False),
        (NysAct, {"rank": 64}, True),
        (FOOF, {}, True),
        (KFAC, {}, True),
        (Eva, {}, False),
        (SKFAC, {}, True),
    ],
)
def test_refreshes_are_shared_by_default_where_they_take_long(build, options, shared):
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(256, 200))
    assert pays(build(model, **options).engine._stacks) == shared


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_work_is_divided_evenly_and_the_same_everywhere(processes):
    costs = [float(value) for value in randn(40).abs()]
    owners = assign(costs, processes)
    assert owners == assign(costs, processes)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == p) for p in range(processes)]
    assert max(loads) - min(loads) <= max(costs)
    assert assign([], processes) == []
