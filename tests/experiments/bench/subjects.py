"""A small workload, and clocks that tell no real time."""

import torch

from nysact.experiments.bench.clock import Clock
from nysact.experiments.bench.workload import Workload

CPU = torch.device("cpu")


def workload(**changes) -> Workload:
    options = {"in_features": 6, "width": 8, "depth": 2, "classes": 3}
    settings = {"model": "mlp", "options": options, "batch_size": 4, "device": CPU}
    return Workload(**{**settings, **changes})


class CountingClock(Clock):
    """Moves on by some seconds with each mark."""

    def __init__(self, stride=1.0):
        super().__init__(CPU)
        self.now, self.stride = 0.0, stride

    def mark(self):
        self.now += self.stride
        return self.now

    def between(self, start, end):
        return end - start
