"""Who computes which factors, as pure functions of costs and sizes."""

from collections import Counter

import pytest

from nysact.distributed import assign, rank_slices, sharing_pays

from ..oracles import randn


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
    owners = Counter()
    for index in range(processes):
        for number, share in enumerate(rank_slices(costs, counts, index, processes)):
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
