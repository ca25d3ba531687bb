import time

import pytest
import torch

from nysact.experiments.clock import WINDOW, Clock, StepClock, without_warmup
from nysact.experiments.errors import ExperimentError

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def test_wall_clock_sees_sleep_and_the_processors_clock_does_not():
    wall, cpu = Clock(CPU), Clock(CPU, "cpu")
    marks = [(clock, clock.mark()) for clock in (wall, cpu)]
    time.sleep(0.05)
    slept, computed = (clock.between(start, clock.mark()) for clock, start in marks)
    assert slept >= 0.05
    assert 0 <= computed < slept


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("sundial", CPU, "--clock sundial: expected one of auto, events, wall, cpu"),
        ("events", CPU, "--clock events: cpu has no events"),
        ("cpu", CUDA, "--clock cpu: it cannot time cuda"),
    ],
)
def test_clocks_that_do_not_fit_are_refused(name, device, message):
    with pytest.raises(ExperimentError, match=message):
        Clock(device, name)


def test_events_are_the_clock_of_cuda():
    assert Clock(CUDA).by_events
    assert not Clock(CPU).by_events


@pytest.mark.cuda
def test_cuda_events_time_the_devices_work():
    clock, matrix = Clock(CUDA), torch.randn(2048, 2048, device=CUDA)
    torch.cuda.synchronize()
    start = clock.mark()
    for _ in range(20):
        matrix = matrix @ matrix / 2048
    assert clock.between(start, clock.mark()) > 1e-4


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
