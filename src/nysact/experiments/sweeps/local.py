"""Runs configurations on this machine, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nysact.experiments.config import Config
from nysact.experiments.environment import SIDE_BY_SIDE
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.outcome import LOG, Outcome, failed, last_lines, start_folder
from nysact.experiments.sweeps.worker import ELSEWHERE

POLL_SECONDS = 0.2


class LocalJob:
    """A process that runs a configuration.

    Args:
        config: The configuration.
        path: The run's folder.
        command: The process's command, which reads the configuration from its standard input.
        variables: Its environment.
    """

    def __init__(
        self, config: Config, path: Path, command: Sequence[str], variables: Mapping[str, str]
    ) -> None:
        self.config = config
        self.path = path
        with (path / LOG).open("ab") as log:
            self.begin = log.tell()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=variables
            )
        assert self.process.stdin is not None
        # If the process has ended already, its log says why.
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(config.model_dump()).encode() + b"\n")
            self.process.stdin.flush()

    def done(self) -> bool:
        """Tell whether the process has ended."""
        return self.process.poll() is not None

    def outcome(self) -> Outcome:
        """Say what came of it once it has ended."""
        self.stop()
        status = self.process.returncode
        if status in (0, ELSEWHERE):
            return Outcome(self.config, self.path, elsewhere=status == ELSEWHERE)
        ended = f"by signal {-status}" if status < 0 else f"with status {status}"
        lines = [*last_lines(self.path / LOG, self.begin), f"the process ended {ended}"]
        return failed(self.config, self.path, "\n".join(lines))

    def stop(self) -> None:
        """End the process now; the run goes on from its checkpoint the next time."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()


class LocalExecutor(Executor):
    """Runs configurations in processes of this machine.

    Whatever ends this process ends those that it started: see
    :mod:`nysact.experiments.sweeps.worker`.

    Args:
        root: The folder of all runs.
        jobs: How many run at a time.
        cpu: Whether to train on the CPU where there is an accelerator.
        devices: Values of ``CUDA_VISIBLE_DEVICES`` that the jobs share, none to leave it alone.
        trackers: What else to tell how the runs go.
    """

    def __init__(
        self,
        root: Path,
        jobs: int = 1,
        *,
        cpu: bool = False,
        devices: Sequence[str] = (),
        trackers: Sequence[str] = (),
    ) -> None:
        super().__init__(root, jobs, POLL_SECONDS)
        self.trackers = trackers
        self.cpu = cpu
        self.devices = devices

    def start(self, config: Config, slot: int) -> LocalJob:
        """Start the process of a run.

        Args:
            config: What it runs.
            slot: Its place among those that run at a time, from 0.

        Returns:
            The process.
        """
        command = [sys.executable, "-m", "nysact.experiments.sweeps.worker", str(self.root)]
        command += ["--cpu"] * self.cpu
        command += [f"--track={name}" for name in self.trackers]
        path = start_folder(config, self.root)
        return LocalJob(config, path, command, self.variables(config, slot))

    def variables(self, config: Config, slot: int) -> dict[str, str]:
        """Give the environment of a process: its neighbours, its threads, and its devices."""
        variables = {**os.environ, SIDE_BY_SIDE: str(self.jobs)}
        if config.threads is not None:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                variables[name] = str(config.threads)
        if self.devices:
            variables["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        return variables
