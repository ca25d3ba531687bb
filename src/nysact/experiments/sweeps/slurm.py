"""Runs configurations as jobs of a SLURM cluster, through submitit."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError, RunningElsewhereError
from nysact.experiments.files import write_text
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.outcome import LAST_LINES, Outcome, failed, start_folder

POLL_SECONDS = 5.0
# Settings that submitit has for every kind of cluster.
SHARED = (
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node"),
    *("tasks_per_node", "stderr_to_stdout"),
)
# The file in a run's folder with the number of its job, by which a later start finds it again.
JOB = "job.txt"


class RunTask(submitit.helpers.Checkpointable):
    """What a job does. A job that is preempted or runs out of time is queued again, and goes on."""

    def __call__(self, line: str, root: str, cpu: bool, trackers: Sequence[str] = ()) -> bool:
        """Run a configuration.

        Args:
            line: The configuration as JSON.
            root: The folder of all runs.
            cpu: Whether to train on the CPU in any case.
            trackers: What else to tell.

        Returns:
            Whether the run was this job's; ``False`` if another process is at it.
        """
        from nysact.experiments.sweeps.worker import run_line

        try:
            run_line(line, Path(root), trackers, cpu=cpu)
        except RunningElsewhereError:
            return False
        return True


class SlurmJob:
    """A job that runs a configuration.

    Args:
        config: The configuration.
        path: The run's folder.
        job: The job.
    """

    def __init__(self, config: Config, path: Path, job: "submitit.Job[bool]") -> None:
        self.config = config
        self.path = path
        self.job = job

    def done(self) -> bool:
        """Tell whether the job has ended."""
        return self.job.done()

    def outcome(self) -> Outcome:
        """Say what came of it once it has ended."""
        error = self.job.exception()
        (self.path / JOB).unlink(missing_ok=True)
        if error is None:
            return Outcome(self.config, self.path, elsewhere=self.job.result() is False)
        printed = (self.job.stdout() or "").splitlines()
        lines = [line for line in (*printed, *str(error).splitlines()) if line.strip()]
        return failed(self.config, self.path, "\n".join(lines[-LAST_LINES:]))

    def stop(self) -> None:
        """Leave the job to the cluster: a later start finds it again."""


class SlurmExecutor(Executor):
    """Runs configurations as jobs of a cluster, which go on if this process ends.

    Args:
        root: The folder of all runs, on a file system that the nodes share.
        jobs: How many jobs are queued or running at a time.
        options: Settings of submitit, such as ``partition``, ``gpus_per_node``, ``timeout_min``.
        cpu: Whether to train on the CPU where there is an accelerator.
        cluster: ``"slurm"``; ``"local"`` runs the jobs on this machine, to try things out.
        trackers: What else to tell how the runs go.

    Raises:
        ExperimentError: If there is no cluster, or an option is unknown.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        options: Mapping[str, Any],
        *,
        cpu: bool = False,
        cluster: str = "slurm",
        poll_seconds: float = POLL_SECONDS,
        trackers: Sequence[str] = (),
    ) -> None:
        check_one_task(options)
        super().__init__(root.resolve(), jobs, poll_seconds)
        self.cpu = cpu
        self.trackers = trackers
        self.folder = self.root / "slurm"
        try:
            self.submitter = submitit.AutoExecutor(self.folder, cluster=cluster)
            self.submitter.update_parameters(**{prefixed(k): v for k, v in options.items()})
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            raise ExperimentError(
                f"--slurm {' '.join(f'{k}={v}' for k, v in options.items())}: "
                f"{str(error).splitlines()[0]}; expected "
                "settings of submitit such as partition=gpu, gpus_per_node=1, timeout_min=600, "
                "on a machine that has sbatch"
            ) from error

    def start(self, config: Config, slot: int) -> SlurmJob:
        """Submit a run, unless the job of an earlier start is still there.

        Args:
            config: What it runs.
            slot: Its place among those that run at a time.

        Returns:
            The job.
        """
        path = start_folder(config, self.root)
        job = self.found(path)
        if job is None:
            line = json.dumps(config.model_dump())
            task = RunTask()  # type: ignore[no-untyped-call]
            job = self.submitter.submit(task, line, str(self.root), self.cpu, self.trackers)
            write_text(path / JOB, job.job_id)
        return SlurmJob(config, path, job)

    def found(self, path: Path) -> "submitit.Job[bool] | None":
        """Find the job that an earlier start submitted for a run, if it has not ended."""
        if not (path / JOB).is_file() or self.submitter.cluster != "slurm":
            return None
        job: submitit.Job[bool] = submitit.SlurmJob(self.folder, (path / JOB).read_text())
        return None if job.done(force_check=True) else job


def check_one_task(options: Mapping[str, Any]) -> None:
    """Make sure that a job is one process: several would be at the same run.

    Args:
        options: Settings of submitit.

    Raises:
        ExperimentError: If there are to be several.
    """
    tasks = ("tasks_per_node", "ntasks_per_node", "ntasks", "nodes")
    for name, value in options.items():
        if name.removeprefix("slurm_") in tasks and value != 1:
            raise ExperimentError(
                f"--slurm {name}={value}: each run is a job of one process; leave it out, ask for "
                "gpus_per_node=1 and let --jobs say how many runs go at a time"
            )


def prefixed(name: str) -> str:
    """Name a setting as submitit does: those that only SLURM knows begin with ``slurm_``."""
    return name if name in SHARED or name.startswith("slurm_") else f"slurm_{name}"


def slurm_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read settings of submitit.

    Args:
        texts: Such as ``"gpus_per_node=1"``.

    Returns:
        The settings, numbers as numbers.

    Raises:
        ExperimentError: If one has no value.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ExperimentError(f"--slurm {text}: expected NAME=VALUE, such as timeout_min=600")
        options[name.strip()] = int(value) if value.strip().isdigit() else value.strip()
    return options
