"""Trains configurations in parallel jobs; finished ones are skipped, interrupted ones resume."""

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import submitit
import torch
from rich.console import Console

from nysact.experiments.config import Config
from nysact.experiments.config.assignments import parse_assignments
from nysact.experiments.environment import SIDE_BY_SIDE
from nysact.experiments.errors import ExperimentError, RunningElsewhereError
from nysact.experiments.files import write_json, write_text
from nysact.experiments.options import BatchOptions
from nysact.experiments.run.display import Display
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import FAILURE, folder_of
from nysact.experiments.run.tracking import trackers_of
from nysact.experiments.sweeps.jobs import GPUS, JOB, Submit, cluster_submitter, local_jobs

LOCAL_POLL_SECONDS = 0.2
CLUSTER_POLL_SECONDS = 5.0
# Jobs of a cluster at a time, unless asked for otherwise.
CLUSTER_JOBS = 100
# Files in a run's folder: the number of its job, by which a later command finds it, and the
# output of its processes, in which a line begins each attempt.
JOB_FILE = "job.txt"
LOG = "log.txt"
ATTEMPT = "=== started "


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, failed, or skipped because another process is running it."""

    config: Config
    path: Path
    failure: str | None = None
    elsewhere: bool = False


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
                    folder = folder_of(config, self.root)
                    if folder.finished:
                        yield Outcome(config, folder.path)
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
        """Submit a run with a mark in its log, unless an earlier job for it is on the cluster."""
        path = folder_of(config, self.root).path
        if self.cluster and (path / JOB_FILE).is_file():
            number = (path / JOB_FILE).read_text("utf-8")
            earlier: submitit.Job[Outcome] = submitit.SlurmJob(self.root / "slurm", number)
            if not earlier.done(force_check=True):
                return earlier
        path.mkdir(parents=True, exist_ok=True)
        (path / FAILURE).unlink(missing_ok=True)
        with (path / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{ATTEMPT}{datetime.now():%Y-%m-%d %H:%M:%S}\n")
        task = partial(train_run, config, self.root, self.trackers, self.cpu)
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
        path = folder_of(config, self.root).path
        error = job.exception()
        (path / JOB_FILE).unlink(missing_ok=True)
        if error is None:
            return job.result()
        lines = last_lines(path) or str(error).splitlines()
        ended = f"the process ended without a result, killed or out of memory ({job.state.lower()})"
        return failed(config, path, [*lines, ended])


def executor_for(configs: Sequence[Config], options: BatchOptions) -> Executor:
    """Make the executor that a command's options ask for."""
    make = partial(Executor, options.runs, cpu=options.cpu, trackers=trackers_of(options.track))
    if options.slurm:
        cluster = parse_assignments(options.slurm, "--slurm", "timeout_min=600")
        return make(options.jobs or CLUSTER_JOBS, cluster=cluster)
    devices = [] if options.cpu else visible_devices()
    return make(options.jobs or parallel_runs(configs, devices), devices=devices)


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


def train_run(config: Config, root: Path, trackers: Sequence[str], cpu: bool) -> Outcome:
    """Train a run in a process of its own, whose output goes to a log."""
    path = folder_of(config, root).path
    # Whatever this process prints from now on, native code included.
    log = os.open(path / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.getLogger("submitit").setLevel(logging.WARNING)
    try:
        run(config, root, display=Display(Console(width=200)), trackers=trackers, cpu=cpu)
        return Outcome(config, path)
    except RunningElsewhereError:
        return Outcome(config, path, elsewhere=True)
    except ExperimentError as error:
        print(f"Error: {error}")
    except Exception:
        traceback.print_exc()
    return failed(config, path, last_lines(path))


def failed(config: Config, path: Path, lines: Sequence[str]) -> Outcome:
    """Record why a run failed, for reports."""
    if not (path / "config.json").is_file():
        write_json(path / "config.json", config.model_dump())
    reason = "\n".join(lines)
    write_text(path / FAILURE, reason + "\n")
    return Outcome(config, path, reason)


def last_lines(path: Path, count: int = 20) -> list[str]:
    """Read the last lines of the latest attempt in a run's log that are not blank."""
    text = (path / LOG).read_text("utf-8", errors="replace")
    lines = text.rpartition(ATTEMPT)[2].splitlines()[1:]
    return [line for line in lines if line.strip()][-count:]
