"""A process that dies or stops in the middle of a sum is an error of the others, and no hang."""

import os
import signal
import time
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from nysact import NysAct
from nysact.engine.layer_group import LayerGroup

from .training import SETTINGS, network, train, wrap
from .workers import PATIENCE, Workers

TIMEOUT = 5


class Interrupted(TorchDispatchMode):
    """Sends this process a signal when it enters a collective."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            os.kill(os.getpid(), self.number)
        return func(*args, **(kwargs or {}))


def interrupted(number):
    """Process 1 is interrupted at the second refresh; give what process 0 makes of it."""
    model = network()
    group = dist.new_group(timeout=timedelta(seconds=TIMEOUT))
    optimizer = NysAct(model, process_group=group, **SETTINGS)
    train(model, optimizer, range(SETTINGS["inv_interval"]), sizes=[4, 4])
    start = time.monotonic()
    if dist.get_rank() == 1:
        with Interrupted(number):
            train(model, optimizer, [0], sizes=[4, 4])
    with pytest.raises(RuntimeError, match=r"(?i)gloo|connection|timed out"):
        train(model, optimizer, [0], sizes=[4, 4])
    return time.monotonic() - start


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)],
    ids=["dies", "stops"],
)
def test_the_others_get_an_error_within_the_timeout(number):
    workers = Workers(2)
    try:
        seconds = workers.ask(0, interrupted, number)
    finally:
        workers.close()
    # The group's, and not the one of all other tests.
    assert seconds < PATIENCE / 2


def failing():
    """Give the step at which a factorisation that always fails ends the training."""
    model = wrap(network(), "ddp")
    optimizer = NysAct(model, max_failures=0, **SETTINGS)

    def factorise(group, layers=slice(None)):
        factors, succeeded = whole_factorise(group, layers)
        return factors, torch.zeros_like(succeeded)

    whole_factorise = LayerGroup.factorise
    with mock.patch.object(LayerGroup, "factorise", factorise):
        for step in range(9):
            try:
                train(model, optimizer, [step], sizes=[4, 4])
            except RuntimeError as error:
                return step, "max_failures=0 is exceeded" in str(error)
    return None


def test_processes_give_up_at_the_same_step(two):
    assert two(failing) == [(0, True)] * 2
