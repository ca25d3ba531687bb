"""How long runs will take: as long as their like took, else by a few steps of each."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from nysact.experiments.config import Config
from nysact.experiments.data.presence import would_be_downloaded
from nysact.experiments.environment import device_name
from nysact.experiments.report.config_diff import completed
from nysact.experiments.run.failure import succeeded
from nysact.experiments.run.store import StoredRun
from nysact.experiments.sweeps.trial import START_SECONDS, timed

# What a run's duration hardly depends on.
FREE = ("recipe", "row", "column", "sweep", "seed", "schedule", "label_smoothing")
FREE_OPTIONS = (
    *("lr", "momentum", "nesterov", "betas", "weight_decay", "damping", "stat_decay", "kl_clip"),
    *("adamw_lr", "adamw_betas", "adamw_weight_decay", "beta2", "eps"),
)


def likeness(config: Mapping[str, Any]) -> str:
    """Write out what the duration of a run depends on, such as the steps between refreshes."""
    values = {name: value for name, value in config.items() if name not in FREE}
    options = config["optimizer"]["options"].items()
    costly = {name: value for name, value in options if name not in FREE_OPTIONS}
    values["optimizer"] = (config["optimizer"]["name"], costly)
    values["data"] = {k: v for k, v in config["data"].items() if k not in ("folder", "workers")}
    return json.dumps(values, sort_keys=True)


def estimate(
    configs: Sequence[Config],
    stored: Iterable[StoredRun],
    *,
    cpu: bool = False,
    download: bool = True,
    on_unknown: Callable[[Config, str], None] = lambda config, reason: None,
) -> list[float]:
    """Estimate how long each of several runs takes from its start to its end.

    Args:
        configs: The runs.
        stored: Runs, of which those that are alike and were made on the same device count.
        cpu: Whether to train on the CPU where there is an accelerator.
        download: Whether data may be downloaded to time a few steps.
        on_unknown: Called with a run whose time cannot be told, and why.

    Returns:
        Seconds for each, 0 where they cannot be told; where no run that is alike has finished, a
        few steps are timed.
    """
    wanted = {likeness(config.model_dump()): config for config in configs}
    device = device_name(device_here(cpu=cpu))
    known: dict[str, list[float]] = {}
    for run in stored:
        kind = likeness(completed(run.config))
        if kind in wanted and succeeded(run) and run.environment.get("device_name") == device:
            known.setdefault(kind, []).append(duration(run))
    seconds = {kind: median(found) for kind, found in known.items()}
    left = {kind: config for kind, config in wanted.items() if kind not in known}
    if not download:
        for kind, config in list(left.items()):
            if would_be_downloaded(config.data):
                on_unknown(config, f"{config.data.name} is not here, and would be downloaded")
                del left[kind]
    for kind, found in zip(left, timed(list(left.values()), cpu=cpu), strict=True):
        if isinstance(found, str):
            on_unknown(left[kind], found)
        else:
            seconds[kind] = found
    return [seconds.get(likeness(config.model_dump()), 0.0) for config in configs]


def device_here(*, cpu: bool) -> torch.device:
    """Name the device that a run gets, without taking any of its memory."""
    found = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")


def duration(run: StoredRun) -> float:
    """Measure a finished run: from the first of its files to the last, evaluations included.

    Args:
        run: The run.

    Returns:
        Seconds; the time of its steps at least, for a run that was stopped in between was given
        its first file anew.
    """
    first, last = (run.path / name for name in ("config.json", "result.json"))
    seconds = last.stat().st_mtime - first.stat().st_mtime + START_SECONDS
    return max(seconds, float((run.timings or {}).get("training_seconds", 0.0)))


def in_words(seconds: float) -> str:
    """Write a duration such as ``2 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min"
