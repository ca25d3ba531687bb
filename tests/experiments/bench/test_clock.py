import time

import pytest
import torch

from nysact.experiments.bench.clock import EventClock, make_clock
from nysact.experiments.errors import ExperimentError

from .subjects import CPU

CUDA = torch.device("cuda")


def test_wall_clock_sees_sleep_and_the_processors_clock_does_not():
    wall, cpu = make_clock("auto", CPU), make_clock("cpu", CPU)
    marks = [(clock, clock.mark()) for clock in (wall, cpu)]
    time.sleep(0.05)
    slept, computed = (clock.between(start, clock.mark()) for clock, start in marks)
    assert slept >= 0.05
    assert 0 <= computed < slept


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("sundial", CPU, "--clock sundial: expected one of auto, events, wall, cpu"),
        ("events", CPU, "--clock events: cpu has none"),
        ("cpu", CUDA, "--clock cpu: it sees nothing of cuda"),
    ],
)
def test_clocks_that_do_not_fit_are_refused(name, device, message):
    with pytest.raises(ExperimentError, match=message):
        make_clock(name, device)


def test_events_are_the_clock_of_cuda():
    assert isinstance(make_clock("auto", CUDA), EventClock)


@pytest.mark.cuda
def test_cuda_events_time_the_devices_work():
    clock, matrix = make_clock("auto", CUDA), torch.randn(2048, 2048, device=CUDA)
    torch.cuda.synchronize()
    start = clock.mark()
    for _ in range(20):
        matrix = matrix @ matrix / 2048
    assert clock.between(start, clock.mark()) > 1e-4
