import time

import pytest
import torch

from nysact.experiments.clock import Clock
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
