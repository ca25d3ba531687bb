import pytest

from nysact.experiments.baselines import BASELINES
from nysact.experiments.bench.contender import contenders
from nysact.experiments.bench.split import (
    PARTS,
    PLACES,
    REST,
    STEP,
    PartTimer,
    over_a_cycle,
    split,
)
from nysact.experiments.bench.workload import Training

from .subjects import CountingClock, workload

OWN = {"nysact", "nysact-columns", "nysact-gaussian", "foof", "kfac", "eva", "skfac"}


def of(name: str):
    return contenders([name])[-1]


def test_a_part_is_timed_without_those_inside_it():
    clock = CountingClock()
    timer = PartTimer(clock)
    with timer.part("outer"):  # from 1 to 8
        with timer.part("inner"), timer.part("core"):  # from 2 to 5, and 3 to 4
            pass
        with timer.part("inner"):  # from 6 to 7
            pass
    assert timer.take() == {"outer": 3.0, "inner": 3.0, "core": 1.0}
    assert timer.take() == {}


def test_a_part_that_fails_is_closed():
    timer = PartTimer(CountingClock())
    with pytest.raises(KeyError), timer.part("outer"), timer.part("inner"):
        raise KeyError
    with timer.part("other"):
        pass
    assert timer.take() == {"outer": 2.0, "inner": 1.0, "other": 1.0}


@pytest.mark.parametrize("name", sorted(OWN))
def test_each_kind_of_step_of_the_library_has_its_parts(name):
    kinds = split(workload(), of(name), CountingClock())
    assert set(kinds) == {"plain", "statistics", "refresh"}
    for parts in kinds.values():
        assert set(parts) >= {REST, "apply", "update", STEP}
        assert all(seconds > 0 for seconds in parts.values())
    assert "capture" not in kinds["plain"]
    assert "refresh" not in kinds["plain"]
    assert "refresh" not in kinds["statistics"]
    assert kinds["statistics"]["capture"] > 0
    assert kinds["refresh"]["refresh"] > 0


@pytest.mark.parametrize("name", ["released-columns", "released-gaussian"])
def test_the_released_code_has_the_same_parts_but_for_the_update(name):
    kinds = split(workload(), of(name), CountingClock())
    assert set(kinds["refresh"]) == set(PARTS) - {"update"}
    assert "refresh" not in kinds["statistics"]


@pytest.mark.parametrize("name", sorted(set(BASELINES) - OWN))
def test_of_other_optimizers_the_step_is_told_from_forward_and_backward(name):
    for parts in split(workload(), of(name), CountingClock()).values():
        assert parts[REST] > 0
        assert parts[STEP] > 0


def test_parts_add_up_to_the_whole():
    found = split(workload(), of("sgd"), CountingClock())
    # Two marks around the whole and two around the step: three seconds between first and last.
    assert found == {"plain": {REST: 2.0, STEP: 1.0}}


@pytest.mark.parametrize(("stride", "steps"), [(0.001, 9), (10.0, 5)])
def test_slow_steps_are_taken_apart_once_a_kind(monkeypatch, stride, steps):
    taken, original = [], Training.step
    monkeypatch.setattr(Training, "step", lambda self: (taken.append(1), original(self)))
    kinds = split(workload(), of("nysact"), CountingClock(stride))
    assert set(kinds) == {"plain", "statistics", "refresh"}
    assert len(taken) == steps


def test_nothing_stays_wrapped():
    before = [vars(owner)[name] for owner, name, _ in PLACES]
    split(workload(), of("kfac"), CountingClock())
    assert [vars(owner)[name] for owner, name, _ in PLACES] == before


def test_cycles_weigh_kinds_by_how_often_they_come():
    kinds = {
        "plain": {REST: 10.0},
        "statistics": {REST: 10.0, "capture": 5.0},
        "refresh": {REST: 10.0, "capture": 5.0, "refresh": 100.0},
    }
    found = over_a_cycle(kinds, of("nysact"))
    assert found == {REST: 10.0, "capture": pytest.approx(1.0), "refresh": pytest.approx(2.0)}
