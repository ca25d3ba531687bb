import time

import pytest
import torch

from nysact.experiments.clock import WINDOW, Clock, StepClock, without_warmup
from nysact.experiments.errors import ExperimentError

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["auto", "wall"])
def test_clock_gives_the_seconds_between_two_marks(kind):
    clock = Clock(CPU, kind)
    start = clock.mark()
    time.sleep(0.02)
    assert clock.between(start, clock.mark()) >= 0.02


def test_processor_time_does_not_count_sleep():
    clock = Clock(CPU, "cpu")
    start = clock.mark()
    time.sleep(0.5)
    assert clock.between(start, clock.mark()) < 0.5


@pytest.mark.parametrize(("kind", "device"), [("events", "cpu"), ("cpu", "cuda"), ("sun", "cpu")])
def test_clock_that_the_device_lacks_is_an_error(kind, device):
    with pytest.raises(ExperimentError, match=f"--clock {kind}"):
        Clock(torch.device(device), kind)


@pytest.mark.cuda
def test_events_wait_for_the_device():
    clock = Clock(torch.device("cuda"))
    matrix = torch.randn(2000, 2000, device="cuda")
    start = clock.mark()
    for _ in range(20):
        matrix = matrix @ matrix
    assert clock.between(start, clock.mark()) > 0


def test_step_clock_counts_each_step_and_nothing_between(monkeypatch):
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


def clock_of(*parts: list[float]) -> StepClock:
    """A clock of a process for each part, each of which went on from the checkpoint of the last."""
    clock = StepClock(CPU)
    for seconds in parts:
        if clock.seconds():
            former, clock = clock, StepClock(CPU)
            clock.restore(former.seconds(), former.starts)
        clock.seconds().extend(seconds)
    return clock


def test_summary_has_total_mean_and_median():
    assert clock_of([1.0, 2.0, 6.0]).summary() == {
        "training_seconds": 9.0,
        "timed_steps": 3,
        "mean_step_seconds": 3.0,
        "median_step_seconds": 2.0,
    }
    assert clock_of().summary()["mean_step_seconds"] == 0


def test_first_steps_of_each_process_count_in_the_total_alone():
    slow, steady = [9.0] * WINDOW, [1.0] * WINDOW
    found = clock_of(slow + steady, slow, slow + steady).summary()
    assert found["training_seconds"] == 29 * WINDOW
    assert found["timed_steps"] == 2 * WINDOW
    assert (found["mean_step_seconds"], found["median_step_seconds"]) == (1, 1)


def test_costly_steps_keep_their_share_of_the_mean():
    costly = [10.0 if step % WINDOW == 0 else 1.0 for step in range(10 * WINDOW)]
    expected = (10 + WINDOW - 1) / WINDOW
    assert clock_of(costly).summary()["mean_step_seconds"] == pytest.approx(expected)


def test_short_run_counts_all_its_steps():
    times = [float(step) for step in range(2 * WINDOW - 1)]
    assert without_warmup(times, [0]) == times
