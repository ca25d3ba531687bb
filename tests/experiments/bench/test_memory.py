import pytest
import torch

from nysact.experiments.bench.candidate import candidates
from nysact.experiments.bench.profiled import measure_memory, memory_changes, peak, profiler

from .subjects import CPU, workload

OPTIONS = {"in_features": 30, "width": 40, "depth": 2, "classes": 10}
PARAMETERS = 30 * 40 + 40 + 40 * 10 + 10


def memory_of(name, own=None, **changes):
    (*_, chosen) = candidates([name], own={name: own or {}})
    return measure_memory(workload(options=OPTIONS, **changes), chosen)


def test_peak_of_changes():
    assert peak([]) == 0
    assert peak([10, 5, -10, 20, -1, -24]) == 25


def test_profile_sees_every_allocation_in_order():
    with profiler(CPU, memory=True) as record:
        first = torch.empty(1000)
        second = torch.empty(3000)
        del first
        third = torch.empty(500)
        del second, third
    changes = [change for _, change in memory_changes(record, CPU)]
    assert changes == [4000, 12000, -4000, 2000, -12000, -2000]
    assert peak(changes) == 16000


def test_momentum_adds_its_own_bytes_to_the_peak():
    # Many samples, so that the peak is in the backward, where nothing but the state differs.
    with_it = memory_of("sgd", batch_size=2000)
    without = memory_of("sgd", {"momentum": 0.0}, batch_size=2000)
    assert with_it.allocated - without.allocated == 4 * PARAMETERS
    assert (with_it.state, with_it.beside_momentum) == (4 * PARAMETERS, 0)
    assert (without.state, without.beside_momentum) == (0, 0)


def test_peak_holds_weights_gradients_momentum_and_batch():
    batch = 500 * (30 * 4 + 8)
    found = memory_of("sgd", batch_size=500)
    assert found.allocated >= 3 * 4 * PARAMETERS + batch
    # The activations: two layers' outputs and their gradients, and what the loss keeps.
    assert found.allocated <= 3 * 4 * PARAMETERS + batch + 500 * 4 * (4 * 40 + 8 * 10)
    assert found.reserved is None


def test_state_of_adam_beside_what_stands_for_momentum():
    found = memory_of("adamw")
    assert found.beside_momentum == 4 * PARAMETERS + 4 * 4  # and a step count a parameter


def test_dense_inverses_take_more_than_a_sketch():
    ours, dense = memory_of("nysact", {"rank": 2}), memory_of("foof")
    assert 0 < ours.beside_momentum < dense.beside_momentum
    assert ours.allocated < dense.allocated
    assert dense.beside_momentum > 4 * (31 * 31 + 41 * 41)


@pytest.mark.cuda
def test_cuda_reports_what_its_allocator_holds():
    found = memory_of("nysact", batch_size=500, device=torch.device("cuda"))
    assert found.reserved >= found.allocated > 3 * 4 * PARAMETERS
