"""A checkpoint that is being written when the process dies or the disk is full is whole or old."""

import copy
import errno
import os
import resource
import signal
from contextlib import suppress

import pytest
import torch

from nysact.experiments.files import write_atomically

from ..steps import same, state_of
from .faults import Training, drawn


class Interrupted:
    """A file in which the process is killed after a number of bytes."""

    def __init__(self, file, bytes_left):
        self.file, self.bytes_left = file, bytes_left

    def write(self, data):
        self.file.write(data[: self.bytes_left])
        self.bytes_left -= len(data)
        if self.bytes_left <= 0:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(data)

    def flush(self):
        self.file.flush()


def in_child(write):
    """Run a function in a forked process; give the number that it exited with or died of."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(write())
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(path, state, size):
    def write():
        write_atomically(path, lambda file: torch.save(state, Interrupted(file, size)))
        return 0

    assert in_child(write) == -signal.SIGKILL


def full(path, state, size):
    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            write_atomically(path, lambda file: torch.save(state, file))
        except (OSError, RuntimeError) as error:
            causes = [error, error.__context__, error.__cause__]
            return 7 if any(getattr(e, "errno", None) == errno.EFBIG for e in causes) else 8
        return 0

    assert in_child(write) == 7


FAULTS = {"a process that is killed": killed, "a full disk": full}


def check(fault, seed, folder):
    training, path = Training("NysAct"), folder / f"{seed}.pt"
    training.step(0)
    old = copy.deepcopy(training.optimizer.state_dict())
    write_atomically(path, lambda file: torch.save(old, file))
    before = state_of(training.optimizer)
    training.step(1)
    size = path.stat().st_size
    draw = drawn(fault.__name__, seed)
    fault(path, training.optimizer.state_dict(), draw.randrange(1, size - 64))
    loaded = Training("NysAct").optimizer
    twin = Training("NysAct")
    loaded.load_state_dict(torch.load(path))
    assert same(state_of(loaded), before)
    # The process that failed to write goes on, and writes again.
    write_atomically(path, lambda file: torch.save(training.optimizer.state_dict(), file))
    twin.optimizer.load_state_dict(torch.load(path))
    assert same(state_of(twin.optimizer), state_of(training.optimizer))


@pytest.mark.parametrize("name", FAULTS)
def test_a_write_that_fails_leaves_the_last_checkpoint(name, tmp_path):
    check(FAULTS[name], 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_many_writes_that_fail_leave_the_last_checkpoint(name, tmp_path):
    for seed in range(1, 51):
        check(FAULTS[name], seed, tmp_path)
