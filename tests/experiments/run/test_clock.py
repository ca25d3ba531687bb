import time

import pytest
import torch

from nysact.experiments.run.clock import StepClock, summary

CPU = torch.device("cpu")


def test_clock_counts_each_step_and_nothing_between(monkeypatch):
    now = iter([10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = StepClock(CPU)
    for _ in range(2):
        with clock.step():
            pass
    assert clock.seconds() == [0.5, 1.0]


def test_step_that_fails_does_not_count():
    clock = StepClock(CPU)
    with pytest.raises(KeyError), clock.step():
        raise KeyError
    assert clock.seconds() == []


def test_earlier_steps_can_be_taken_over():
    clock = StepClock(CPU)
    clock.restore([3.0])
    with clock.step():
        pass
    assert len(clock.seconds()) == 2
    assert clock.seconds()[0] == 3.0


def test_summary_has_total_mean_and_median():
    assert summary([1.0, 2.0, 6.0], CPU) == {
        "training_seconds": 9.0,
        "mean_step_seconds": 3.0,
        "median_step_seconds": 2.0,
    }
    assert summary([], CPU)["mean_step_seconds"] == 0
