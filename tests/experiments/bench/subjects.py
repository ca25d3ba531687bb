"""A small workload, a clock that tells no real time, and an optimizer with the library's labels."""

import time

import torch
from torch.optim import SGD
from torch.profiler import record_function

from nysact.experiments.bench.workload import Workload
from nysact.experiments.clock import Clock

CPU = torch.device("cpu")


def workload(**changes) -> Workload:
    options = {"in_features": 6, "width": 8, "depth": 2, "classes": 3}
    settings = {"model": "mlp", "options": options, "batch_size": 4, "device": CPU}
    return Workload(**{**settings, **changes})


class CountingClock(Clock):
    """Moves on by a second with each mark."""

    def __init__(self):
        super().__init__(CPU)
        self.now = 0.0

    def mark(self):
        self.now += 1.0
        return self.now


class LabelledSGD(SGD):
    """SGD that labels phases like the library's engine, some of them nested."""

    def step(self, closure=None):
        with record_function("nysact.capture"):
            time.sleep(0.01)
            with record_function("nysact.reduce"):
                time.sleep(0.02)
        with record_function("nysact.refresh"):
            torch.linalg.inv(torch.eye(20))
        with record_function("nysact.update"), record_function("other label"):
            return super().step(closure)
