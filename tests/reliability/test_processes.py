"""A process that dies at any collective of a step is an error of the other one, and no hang."""

import os
import signal
from datetime import timedelta

import pytest
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from nysact import NysAct

from ..distributed.training import SETTINGS, network, train
from ..distributed.workers import Workers

TIMEOUT = 5


class Collectives(TorchDispatchMode):
    """Counts collectives, and kills this process when it enters one of them."""

    def __init__(self, fatal=None):
        super().__init__()
        self.fatal, self.count = fatal, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
        return func(*args, **(kwargs or {}))


def training(fatal=None):
    """Give the number of collectives, or what process 0 knows after the other one died."""
    model = network()
    group = dist.new_group(timeout=timedelta(seconds=TIMEOUT))
    optimizer = NysAct(model, process_group=group, **SETTINGS)
    with Collectives(fatal if dist.get_rank() == 1 else None) as mode:
        try:
            train(model, optimizer, range(2 * SETTINGS["inv_interval"] + 1), sizes=[4, 4])
        except RuntimeError as error:
            finite = all(param.isfinite().all() for param in model.parameters())
            loaded = NysAct(network(), process_group=False, **SETTINGS)
            loaded.load_state_dict(optimizer.state_dict())
            return str(error), bool(finite)
    return mode.count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the state dict of step")
def test_a_death_at_each_collective_is_an_error_of_the_other():
    workers = Workers(2)
    try:
        count = workers(training)[0]
    finally:
        workers.close()
    assert count >= 4
    for fatal in range(count):
        workers = Workers(2)
        try:
            message, finite = workers.ask(0, training, fatal)
        finally:
            workers.close()
        assert finite
        assert any(word in message.lower() for word in ("gloo", "connection", "timed out"))
