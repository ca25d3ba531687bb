"""Trains configurations in parallel jobs; finished ones are skipped, interrupted ones resume."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import submitit
import torch

from nysact.experiments.assignments import parse_assignments
from nysact.experiments.config import Config
from nysact.experiments.environment import SIDE_BY_SIDE
from nysact.experiments.files import write_text
from nysact.experiments.run.tracking import trackers_of
from nysact.experiments.sweeps import training_job
from nysact.experiments.sweeps.jobs import GPUS, JOB, Submit, cluster_submitter, local_jobs
from nysact.experiments.sweeps.training_job import Outcome, folder_of, is_finished

LOCAL_POLL_SECONDS = 0.2
CLUSTER_POLL_SECONDS = 5.0
# Jobs of a cluster at a time, unless asked for otherwise.
CLUSTER_JOBS = 100
# The file in a run's folder with the number of its job, by which a later command finds it.
JOB_FILE = "job.txt"


class Executor:
    """Trains configurations in parallel jobs of this machine, or of a cluster if it has settings.

    Local jobs end with this process. Those of a cluster go on, and a later command finds them.
    """

    def __init__(
        self,
        root: Path,  # the folder of all runs
        jobs: int = 1,
        *,
        cluster: Mapping[str, Any] | None = None,  # settings of submitit
        cpu: bool = False,
        devices: Sequence[str] = (),  # values of CUDA_VISIBLE_DEVICES that local jobs share
        trackers: Sequence[str] = (),
    ) -> None:
        self.root, self.jobs, self.cpu = root, jobs, cpu
        self.devices, self.trackers = devices, trackers
        self.cluster = None
        if cluster is not None:
            self.root = root.resolve()
            self.cluster = cluster_submitter(self.root / "slurm", cluster)

    def execute(
        self, configs: Iterable[Config], on_poll: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        """Train all and yield each outcome; the next run is asked for when there is room for it."""
        waiting = iter(configs)
        running: dict[int, tuple[Config, submitit.Job[Outcome]]] = {}
        submission = (
            nullcontext(partial(self.cluster.submit, JOB)) if self.cluster else local_jobs()
        )
        with submission as submit:
            while True:
                while len(running) < self.jobs and (config := next(waiting, None)) is not None:
                    if is_finished(config, self.root):
                        yield Outcome(config, folder_of(config, self.root))
                        continue
                    slot = min(set(range(self.jobs)) - running.keys())
                    running[slot] = config, self.start(config, slot, submit)
                if not running:
                    return
                time.sleep(CLUSTER_POLL_SECONDS if self.cluster else LOCAL_POLL_SECONDS)
                on_poll()
                for slot in [slot for slot, (_, job) in running.items() if job.done()]:
                    yield self.outcome(*running.pop(slot))

    def start(self, config: Config, slot: int, submit: Submit) -> "submitit.Job[Outcome]":
        """Submit a run, unless an earlier command's job for it is still on the cluster."""
        path = folder_of(config, self.root)
        if self.cluster and (path / JOB_FILE).is_file():
            number = (path / JOB_FILE).read_text("utf-8")
            earlier: submitit.Job[Outcome] = submitit.SlurmJob(self.root / "slurm", number)
            if not earlier.done(force_check=True):
                return earlier
        training_job.start_attempt(path)
        task = partial(training_job.train_run, config, self.root, self.trackers, self.cpu)
        job = submit(task, {} if self.cluster else self.environment(slot))
        if self.cluster:
            write_text(path / JOB_FILE, job.job_id)
        return job

    def environment(self, slot: int) -> dict[str, str]:
        """The variables of a local job: how many run side by side, and which GPUs it sees."""
        gpu = {GPUS: self.devices[slot % len(self.devices)]} if self.devices else {}
        return {SIDE_BY_SIDE: str(self.jobs), **gpu}

    def outcome(self, config: Config, job: "submitit.Job[Outcome]") -> Outcome:
        """Read how a job ended."""
        path = folder_of(config, self.root)
        error = job.exception()
        (path / JOB_FILE).unlink(missing_ok=True)
        if error is None:
            return job.result()
        lines = training_job.last_lines(path) or str(error).splitlines()
        ended = f"the process ended without a result, killed or out of memory ({job.state.lower()})"
        return training_job.failed(config, path, [*lines, ended])


def executor_for(
    configs: Sequence[Config],
    root: Path,
    jobs: int | None,
    slurm: Sequence[str] | None,
    track: Sequence[str] | None,
    *,
    cpu: bool,
) -> Executor:
    """Make the executor that a command's options ask for."""
    trackers = trackers_of(track)
    if slurm:
        cluster = parse_assignments(slurm, "--slurm", "timeout_min=600")
        return Executor(root, jobs or CLUSTER_JOBS, cluster=cluster, cpu=cpu, trackers=trackers)
    devices = [] if cpu else visible_devices()
    number = jobs or parallel_runs(configs, devices)
    return Executor(root, number, cpu=cpu, devices=devices, trackers=trackers)


def visible_devices() -> list[str]:
    """List the GPUs that jobs share, if there are several."""
    count = torch.cuda.device_count()
    named = os.environ.get(GPUS) or ",".join(map(str, range(count)))
    return named.split(",") if count > 1 else []


def parallel_runs(configs: Sequence[Config], devices: Sequence[str]) -> int:
    """One run for each GPU; without one, as many as have a core for each of their threads."""
    if devices or torch.accelerator.is_available():
        return max(1, len(devices))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A run that does not say how many threads it has takes all cores.
    threads = max((config.threads or cores or 1 for config in configs), default=1)
    return max(1, (cores or 1) // threads)
