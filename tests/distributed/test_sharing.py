"""Who computes which factors: the division of the work, and what processes then exchange."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from benchmarks.communication import Traffic
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct
from nysact.distributed import assign, rank_slices, sharing_pays

from ..oracles import randn
from .training import SETTINGS, batch, distance, grid, learned, same, wrap


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_work_is_divided_evenly_and_the_same_everywhere(processes):
    costs = [float(value) for value in randn(40).abs()]
    owners = assign(costs, processes)
    assert owners == assign(costs, processes)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == p) for p in range(processes)]
    assert max(loads) - min(loads) <= max(costs)
    assert assign([], processes) == []


@pytest.mark.parametrize("processes", [1, 2, 3, 40])
def test_each_layer_is_computed_by_one_rank(processes):
    counts, costs = [7, 1, 9], [2.0, 30.0, 1.0]
    layers = [cost for cost, count in zip(costs, counts, strict=True) for _ in range(count)]
    owners = Counter()
    for index in range(processes):
        for number, share in enumerate(rank_slices(layers, counts, index, processes)):
            owners.update((number, layer) for layer in range(counts[number])[share])
    expected = {(number, layer) for number, count in enumerate(counts) for layer in range(count)}
    assert owners == dict.fromkeys(expected, 1)


def test_one_layer_is_not_worth_sending_to_ranks_with_nothing_to_do():
    assert not sharing_pays([1e9], [1], 64)
    assert sharing_pays([1e9, 1e9], [1, 1], 64)


def test_sharing_pays_only_where_computing_takes_longer_than_sending():
    # Half of the work is saved, and each rank sends every number about twice.
    assert sharing_pays([1e6] * 2, [10**4] * 2, 2)
    assert not sharing_pays([1e6] * 2, [10**5] * 2, 2)


@pytest.mark.parametrize("processes", [2, 4, 64])
def test_where_all_have_equal_shares_their_number_does_not_matter(processes):
    assert sharing_pays([1e6] * 64, [10**4] * 64, processes)
    assert not sharing_pays([1e6] * 64, [10**5] * 64, processes)


def sent(build, options, shared):
    """What one refresh hands to sums, where the processes share it or not."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(64, 64, 3), nn.Tanh()] * 2 + [nn.Flatten()] + [nn.Linear(256, 256)] * 2
    model = DistributedDataParallel(nn.Sequential(*layers))
    optimizer = build(model, share_refresh=shared, **options)
    model(randn(2, 64, 6, 6, dtype=torch.float32)).sum().backward()
    with Traffic() as traffic:
        optimizer.step()
    return traffic.numbers["allreduce_"]


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
def test_refreshes_are_shared_by_default_where_they_take_long(two, build, options, shared):
    by_default = two(sent, build, options, None)
    assert by_default == two(sent, build, options, shared)
    assert by_default != two(sent, build, options, not shared)


class Operators(TorchDispatchMode):
    """Notes the operators that have a word in their name."""

    def __init__(self, word):
        super().__init__()
        self.word, self.found = word, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.word in func.__name__:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def few_layers(groups):
    """Count who factorises, and what is handed to the sum of the factors."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(64, 5).double())
    group = grid()[1] if groups == "grid" else dist.group.WORLD
    optimizer = NysAct(model, process_group=group, share_refresh=True, **SETTINGS)
    inputs = batch(0)[0].flatten(1).chunk(dist.get_world_size())[dist.get_rank()]
    model(inputs).square().sum(1).mean().backward()
    with Operators("linalg") as factorised, Traffic() as traffic:
        optimizer.step()
    return learned(optimizer), factorised.found, traffic.numbers["allreduce_"]


def one_layer():
    torch.manual_seed(0)
    model = nn.Linear(64, 5).double()
    optimizer = NysAct(model, **SETTINGS)
    model(batch(0)[0].flatten(1)).square().sum(1).mean().backward()
    optimizer.step()
    return learned(optimizer)


def check_few_layers(answers, sums):
    first, expected = answers[0][0], one_layer()
    # A basis, a root, two numbers and a verdict, for one layer and not one a process.
    factors = 65 * 3 + 3 * 3 + 3
    # Each rank inverts the small core of what it got; one of them has made the basis before.
    calls = [len(operators) for _, operators, _ in answers]
    assert sum(number > min(calls) for number in calls) == 1
    for found, _, sent in answers:
        assert same(found, first)
        assert sent[-sums:] == [factors] * sums
    assert distance(first, expected) < 1e-10


def test_fewer_layers_than_processes_send_each_factor_once(two):
    check_few_layers(two(few_layers, "world"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["world", "grid"])
def test_fewer_layers_than_many_processes_send_each_factor_once(four, groups):
    check_few_layers(four(few_layers, groups), 1 if groups == "world" else 2)


def indexing():
    model = wrap(nn.Sequential(*(nn.Linear(6, 6) for _ in range(5))), "ddp")
    optimizer = NysAct(model, share_refresh=True, sketch="gaussian", **SETTINGS)
    model(randn(8, 6, dtype=torch.float32)).sum().backward()
    # A device would have to be sent the lists of places that these operators take.
    with Operators("index") as indexed:
        optimizer.step()
    return indexed.found


def test_a_shared_refresh_sends_no_list_of_places_to_the_device(two):
    assert two(indexing) == [[], []]
