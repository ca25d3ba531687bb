"""NysMuon in several processes: replicas, and matrices that are sharded."""

import pytest

from nysact import NysMuon

from .training import SETTINGS, network, train, wrap


def refused():
    model = wrap(network(), "fsdp")
    with pytest.raises(ValueError, match=r"sharded over processes as .*use NysAdamW"):
        train(model, NysMuon(model, **SETTINGS), range(1), sizes=[4, 4])


def test_sharded_matrices_are_refused_with_the_remedy(two):
    two(refused)
