"""Where runs are run: the options of commands that run many, and the executor they ask for."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from nysact.experiments.config import Config
from nysact.experiments.run.tracking import trackers_of
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.local import LocalExecutor

# Jobs of a cluster at a time, unless asked for otherwise.
CLUSTER_JOBS = 100


def executor_for(
    configs: Sequence[Config],
    root: Path,
    jobs: int | None,
    slurm: Sequence[str] | None,
    track: Sequence[str] | None,
    *,
    cpu: bool,
) -> Executor:
    """Make the executor that a command's options ask for.

    Args:
        configs: What is to be run.
        root: The folder of all runs.
        jobs: How many run at a time, ``None`` for as many as this machine has room for.
        slurm: Settings of submitit for a cluster, none to run on this machine.
        track: What else to tell how the runs go, as ``--track`` has it.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The executor.
    """
    trackers = trackers_of(track)
    if slurm:
        # Imported here: it belongs to an extra of its own.
        from nysact.experiments.sweeps.slurm import SlurmExecutor, slurm_options

        options = slurm_options(slurm)
        return SlurmExecutor(root, jobs or CLUSTER_JOBS, options, cpu=cpu, trackers=trackers)
    devices = [] if cpu else visible_devices()
    number = jobs or room(configs, devices)
    return LocalExecutor(root, number, cpu=cpu, devices=devices, trackers=trackers)


def visible_devices() -> list[str]:
    """List the GPUs that jobs share, if there are several."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = named.split(",") if named else [str(index) for index in range(count)]
    return names if count > 1 else []


def room(configs: Sequence[Config], devices: Sequence[str]) -> int:
    """Count the runs that this machine has room for at a time.

    Args:
        configs: What is to be run.
        devices: The GPUs, if there are several.

    Returns:
        One for each GPU; without one, as many as have a core for each of their threads.
    """
    if devices or torch.accelerator.is_available():
        return max(1, len(devices))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = [config.threads for config in configs if config.threads is not None]
    all_say = len(threads) == len(configs)
    return max(1, (cores or 1) // max(threads)) if threads and all_say else 1
