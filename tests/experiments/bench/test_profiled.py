import pytest
import torch
from torch.profiler import record_function

from nysact.experiments.baselines import BASELINES
from nysact.experiments.bench.candidate import Candidate, candidates
from nysact.experiments.bench.profiled import (
    EVALUATION,
    PHASES,
    REST,
    Span,
    measure_memory,
    measure_phases,
    memory_changes,
    over_a_cycle,
    own_times,
    peak,
    profiler,
    read_phases,
    spans,
)
from nysact.experiments.bench.workload import Training

from .subjects import CPU, LabelledSGD, workload

RELEASED = {"released-columns", "released-gaussian"}
OWN = {"nysact", "nysact-columns", "nysact-gaussian", "foof", "kfac", "eva", "skfac"}
OWN |= {"newton-muon", "nysmuon", "nysadamw"}


# One for each kind of curvature, update and step; the others differ in arithmetic alone.
FAST = {"nysact", "kfac", "nysmuon", "released-columns", "adamw", "adahessian", "kbfgs"}


def every(names: set[str]) -> pytest.MarkDecorator:
    slow = pytest.mark.slow
    found = [name if name in FAST else pytest.param(name, marks=slow) for name in sorted(names)]
    return pytest.mark.parametrize("name", found)


def of(name: str) -> Candidate:
    return candidates([name])[-1]


def test_own_time_is_that_outside_the_spans_inside():
    outer = Span("outer", 0, 8_000_000_000)
    inner, core = Span("inner", 1_000_000_000, 4_000_000_000), Span("core", 2 * 10**9, 3 * 10**9)
    again = Span("inner", 5_000_000_000, 6_000_000_000)
    later = Span("later", 8_000_000_000, 9_000_000_000)
    found = own_times([outer, inner, core, again, later])
    assert found == [(outer, 4.0), (inner, 2.0), (core, 1.0), (again, 1.0), (later, 1.0)]


def test_spans_are_read_outer_ones_first():
    with profiler(CPU) as record:
        with record_function("outer"), record_function("inner"):
            pass
        with record_function("later"):
            pass
    assert [span.name for span in spans(record, CPU)] == ["outer", "inner", "later"]


def test_phases_are_the_labels_of_each_step_and_add_up_to_it():
    subject = workload()
    model = subject.build()
    training = Training(subject, model, LabelledSGD(model.parameters(), lr=0.1))
    with profiler(CPU) as record:
        training.step()
        training.step()
    steps = read_phases(record, CPU)
    whole = [span for span in spans(record, CPU) if span.name == "bench.step"]
    assert len(steps) == len(whole) == 2
    for phases, span in zip(steps, whole, strict=True):
        assert set(phases) == {EVALUATION, "capture", "reduce", "refresh", "update", REST}
        assert all(seconds > 0 for seconds in phases.values())
        assert sum(phases.values()) == pytest.approx((span.end - span.start) / 1e9)
        # Sleeps last at least as long as asked for; that of reduce does not count for capture.
        assert phases["reduce"] >= 0.02
        assert phases["capture"] < sum(phases.values()) - 0.02


@every(RELEASED | OWN)
def test_each_kind_of_step_has_its_phases(name):
    kinds = measure_phases(workload(), of(name))
    assert set(kinds) == {"plain", "statistics", "refresh"}
    for phases in kinds.values():
        assert set(phases) <= set(PHASES)
        assert phases[EVALUATION] > 0
        assert phases["apply"] > 0
    assert kinds["statistics"]["capture"] > 0
    assert kinds["refresh"]["refresh"] > 0


@every(OWN)
def test_capture_in_forward_and_backward_is_labelled(name):
    subject, short = workload(), of(name).with_intervals(2, 4)
    model = subject.build()
    training = Training(subject, model, short.build(model))
    counts = []
    for _ in range(3):
        with profiler(CPU) as record:
            training.step()
        counts.append([span.name for span in spans(record, CPU)].count("nysact.capture"))
    # Once in the step of the optimizer, and for each of the three layers where it captures.
    assert counts[1] == 1
    assert counts[0] == counts[2] >= 1 + 3


@every(set(BASELINES) - RELEASED - OWN)
def test_the_step_of_every_optimizer_is_told_from_forward_and_backward(name):
    for phases in measure_phases(workload(), of(name)).values():
        assert phases[EVALUATION] > 0
        assert phases[REST] > 0


def test_cycles_weigh_kinds_by_how_often_they_come():
    kinds = {
        "plain": {EVALUATION: 10.0},
        "statistics": {EVALUATION: 10.0, "capture": 5.0},
        "refresh": {EVALUATION: 10.0, "capture": 5.0, "refresh": 100.0},
    }
    found = over_a_cycle(kinds, of("nysact"))
    assert found == {EVALUATION: 10.0, "capture": pytest.approx(1.0), "refresh": pytest.approx(2.0)}


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
