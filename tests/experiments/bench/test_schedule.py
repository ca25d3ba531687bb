import pytest

from nysact.experiments.baselines import BASELINES
from nysact.experiments.bench.candidate import Schedule, cycle


def test_kinds_of_steps_of_the_paper():
    schedule = Schedule.of({"cov_interval": 5, "inv_interval": 50, "lr": 0.1})
    kinds = {step: schedule.kind(step) for step in (0, 1, 4, 5, 45, 49, 50, 55, 100)}
    assert [step for step, kind in kinds.items() if kind == "refresh"] == [0, 50, 100]
    assert [step for step, kind in kinds.items() if kind == "statistics"] == [5, 45, 55]
    assert schedule.counts() == {"plain": 40, "statistics": 9, "refresh": 1}


def test_an_optimizer_without_intervals_has_plain_steps_alone():
    schedule = Schedule.of({"lr": 0.1})
    assert {schedule.kind(step) for step in range(10)} == {"plain"}
    assert schedule.counts() == {"plain": 1, "statistics": 0, "refresh": 0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sketchysgd", Schedule(0, 50)), ("soap", Schedule(0, 10)), ("foof", Schedule(5, 50))],
)
def test_intervals_by_other_names_count(name, expected):
    assert Schedule.of(dict(BASELINES[name].defaults)) == expected


def test_a_cycle_holds_whole_ones_of_all():
    assert cycle([Schedule(0, 0)]) == 1
    assert cycle([Schedule(5, 50), Schedule(0, 0), Schedule(0, 20)]) == 100
