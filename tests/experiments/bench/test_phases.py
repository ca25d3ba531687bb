import pytest
from torch.profiler import record_function

from nysact.experiments.baselines import BASELINES
from nysact.experiments.bench.candidate import Candidate, candidates
from nysact.experiments.bench.profiled import (
    EVALUATION,
    PHASES,
    REST,
    Span,
    measure_phases,
    over_a_cycle,
    own_times,
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
