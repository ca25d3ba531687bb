"""Jobs of submitit: a task in its own process, on this machine or on a SLURM cluster."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import submitit
from filelock import FileLock

from nysact.experiments.errors import ExperimentError

T = TypeVar("T")
Submit = Callable[..., "submitit.Job[Any]"]  # of a task, and variables of its environment
GPUS = "CUDA_VISIBLE_DEVICES"
# submitit ends local jobs after two minutes unless told otherwise; this is ten years.
NO_TIMEOUT_MINUTES = 10 * 365 * 24 * 60
# Settings that submitit has for every kind of cluster; the names of the others begin with slurm_.
SHARED = "name timeout_min mem_gb nodes cpus_per_task gpus_per_node tasks_per_node stderr_to_stdout"
# Settings that would let several processes train the same run.
TASKS = ("tasks_per_node", "ntasks_per_node", "ntasks", "nodes")


class Job(submitit.helpers.Checkpointable):
    """Does a task; a cluster's job that is preempted or times out is queued again and resumes."""

    def __call__(
        self, task: Callable[[], T], environment: Mapping[str, str], lock: str | None = None
    ) -> T:
        """Do the task; exit early if it is local and the command that holds the lock ends."""
        if lock is not None:
            threading.Thread(target=exit_when_free, args=[lock], daemon=True).start()
            os.environ.pop(GPUS, None)  # with which submitit hides all GPUs
        os.environ.update(environment)
        return task()


JOB = Job()  # type: ignore[no-untyped-call]


def exit_when_free(lock: str) -> None:
    """Exit this process when nobody holds a lock any more, whatever ended its holder."""
    try:
        FileLock(lock).acquire(poll_interval=0.2)
    finally:
        os._exit(1)


@contextmanager
def local_jobs() -> Iterator[Submit]:
    """Submit jobs to this machine; they end with the body, and if this process is killed."""
    jobs: list[submitit.Job[Any]] = []
    with tempfile.TemporaryDirectory(prefix="nysact-") as folder:
        submitter = submitit.AutoExecutor(folder, cluster="local")
        submitter.update_parameters(timeout_min=NO_TIMEOUT_MINUTES)
        lock = FileLock(Path(folder) / "command.lock")

        def submit(task: Callable[[], Any], environment: Mapping[str, str]) -> "submitit.Job[Any]":
            visible = {GPUS: os.environ[GPUS]} if GPUS in os.environ else {}
            # Its processes ignore Ctrl-C: the lock ends them, without tracebacks.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                variables = {**visible, **environment}
                jobs.append(submitter.submit(JOB, task, variables, str(lock.lock_file)))
            finally:
                signal.signal(signal.SIGINT, before)
            return jobs[-1]

        try:
            with lock:
                yield submit
        finally:
            while not all(job.done() for job in jobs):
                time.sleep(0.05)


def cluster_submitter(folder: Path, options: Mapping[str, Any]) -> submitit.AutoExecutor:
    """Make what submits jobs to a SLURM cluster, each of one process."""
    for name, value in options.items():
        if name.removeprefix("slurm_") in TASKS and value != 1:
            raise ExperimentError(
                f"--slurm {name}={value}: each run is a job of one process; leave it out, ask for "
                "gpus_per_node=1, and set the number of parallel runs with --jobs"
            )
    try:
        submitter = submitit.AutoExecutor(folder, cluster="slurm")
        submitter.update_parameters(**{prefixed(name): options[name] for name in options})
    except (RuntimeError, NameError, ValueError, TypeError) as error:
        given = " ".join(f"{name}={value}" for name, value in options.items())
        raise ExperimentError(
            f"--slurm {given}: {str(error).splitlines()[0]}; expected settings of submitit such as "
            "partition=gpu, gpus_per_node=1, timeout_min=600, on a machine that has sbatch"
        ) from error
    return submitter


def prefixed(name: str) -> str:
    """Name a setting as submitit does."""
    return name if name in SHARED.split() or name.startswith("slurm_") else f"slurm_{name}"
