"""Processes that stay: each runs what it is sent and sends back what came of it.

Importing torch takes seconds, so that the tests of a session share them.
"""

import tempfile
import traceback
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

STARTING, PATIENCE = 250, 60
# All processes are forked from one that has imported these, once for a session.
CONTEXT = mp.get_context("forkserver")
PRELOADED = ["nysact", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"]
CONTEXT.set_forkserver_preload(PRELOADED)


def serve(rank, count, store, connection):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=PATIENCE),
    )
    connection.send("ready")
    while True:
        function, args, options = connection.recv()
        torch.manual_seed(0)
        try:
            connection.send((True, function(*args, **options)))
        except Exception:
            connection.send((False, traceback.format_exc()))


class Workers:
    """A number of processes that form one world under gloo."""

    def __init__(self, count):
        self._count, self._pipes, self._processes = count, [], []

    def _start(self):
        count = self._count
        self._directory = tempfile.TemporaryDirectory()
        store = Path(self._directory.name) / "store"
        self._pipes, ends = zip(*(CONTEXT.Pipe() for _ in range(count)), strict=True)
        self._processes = [
            CONTEXT.Process(target=serve, args=(rank, count, store, end), daemon=True)
            for rank, end in enumerate(ends)
        ]
        for process in self._processes:
            process.start()
        for pipe in self._pipes:
            # On a busy machine the imports take a while.
            assert pipe.poll(STARTING)
            pipe.recv()

    def __call__(self, function, *args, **options):
        """Run a function on all of them at once; give what each returned, in order of ranks."""
        if not self._processes:
            self._start()
        try:
            for pipe in self._pipes:
                pipe.send((function, args, options))
            return self._answers()
        except BaseException:
            # The others may still wait for the one that failed.
            self.close()
            raise

    def ask(self, rank, function, *args):
        """Run a function on all of them, and give what one of them returned."""
        self._start()
        for pipe in self._pipes:
            pipe.send((function, args, {}))
        return self._answers([self._pipes[rank]])[0]

    def _answers(self, pipes=None):
        pipes, answers = pipes or self._pipes, {}
        while len(answers) < len(pipes):
            silent = [pipe for pipe in pipes if pipe not in answers]
            ready = wait(silent, 2 * PATIENCE)
            if not ready:
                raise TimeoutError(f"{len(silent)} processes have not answered")
            for pipe in ready:
                succeeded, answers[pipe] = pipe.recv()
                if not succeeded:
                    raise AssertionError(f"rank {self._pipes.index(pipe)}: {answers[pipe]}")
        return [answers[pipe] for pipe in pipes]

    def close(self):
        for process in self._processes:
            process.kill()
            process.join()
        if self._processes:
            self._directory.cleanup()
        self._processes = []
