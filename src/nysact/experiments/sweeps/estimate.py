"""How long runs will take: as long as their like took, else by a few steps of each."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from nysact.experiments.config import Config
from nysact.experiments.data.loaders import Share
from nysact.experiments.models import build_model
from nysact.experiments.randomness import seeded
from nysact.experiments.report.results import succeeded
from nysact.experiments.run.environment import device_name
from nysact.experiments.run.problem import load_problem
from nysact.experiments.run.store import StoredRun, read_json
from nysact.experiments.run.tracking import make_accelerator
from nysact.experiments.run.training import DivergedError, Training
from nysact.experiments.threads import cpu_threads

# A trial has so many steps; a slow one half of them, and a very slow one as many as fit. Its first
# step warms up; in each ten of the others the rare costly steps have their share.
TRIAL_STEPS = 20
SLOW_SECONDS = 2.0
VERY_SLOW_SECONDS = 10.0
# What a process takes until its first step.
START_SECONDS = 5.0
# What a run's duration hardly depends on.
FREE = ("recipe", "row", "column", "sweep", "seed", "schedule", "label_smoothing")


def likeness(config: Mapping[str, Any]) -> str:
    """Write out what the duration of a run depends on; optimizers are told apart by their name."""
    values = {name: value for name, value in config.items() if name not in FREE}
    values["optimizer"] = config["optimizer"]["name"]
    values["data"] = {k: v for k, v in config["data"].items() if k not in ("folder", "workers")}
    return json.dumps(values, sort_keys=True)


def estimate(
    configs: Sequence[Config], stored: Iterable[StoredRun], *, cpu: bool = False
) -> list[float]:
    """Estimate how long each of several runs takes from its start to its end.

    Args:
        configs: The runs.
        stored: Runs, of which those that are alike and were made on the same device count.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        Seconds for each; where no run that is alike has finished, a few steps are timed.
    """
    wanted = {likeness(config.model_dump()): config for config in configs}
    device = device_name(make_accelerator(configs[0], cpu=cpu).device) if configs else ""
    known: dict[str, list[float]] = {}
    for run in stored:
        kind = likeness(run.config)
        if kind in wanted and succeeded(run) and device_of(run) == device:
            known.setdefault(kind, []).append(duration(run))
    seconds = {
        kind: median(known[kind]) if kind in known else trial(config, cpu=cpu)
        for kind, config in wanted.items()
    }
    return [seconds[likeness(config.model_dump())] for config in configs]


def device_of(run: StoredRun) -> str | None:
    """Name the device on which a run was made."""
    path = run.path / "environment.json"
    name: str | None = read_json(path).get("device_name") if path.is_file() else None
    return name


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


def trial(config: Config, *, cpu: bool) -> float:
    """Time a few steps and an evaluation, and store nothing.

    Args:
        config: The run.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The seconds that the whole run takes by that.
    """
    accelerator = make_accelerator(config, cpu=cpu)
    with cpu_threads(config.threads), seeded(config.seed, accelerator.device):
        problem = load_problem(config, accelerator.device, Share())
        build = partial(build_model, config.model.name, **config.model.options)
        training = Training(config, build, problem, accelerator)
        step = seconds_a_step(training)
        start = time.perf_counter()
        training.evaluate()
        evaluation = time.perf_counter() - start
    interval = config.evaluation_interval or len(problem.train)
    evaluations = math.ceil(training.steps / interval)
    return START_SECONDS + training.steps * step + evaluations * evaluation


def seconds_a_step(training: Training) -> float:
    """Time the first steps of a run, with the reading of their batches.

    Args:
        training: The run before its first step.

    Returns:
        Seconds a step, without the first unless there is no other.
    """
    times = [time.perf_counter()]
    try:
        for inputs, targets in training.batches():
            # The loss is read so that the device has done the step.
            training.step(inputs, targets).item()
            times.append(time.perf_counter())
            if is_enough(len(times) - 2, times[-1] - times[0]):
                break
    except DivergedError:
        times.append(time.perf_counter())
    first = 1 if len(times) > 2 else 0
    return (times[-1] - times[first]) / (len(times) - 1 - first)


def is_enough(steps: int, seconds: float) -> bool:
    """Tell whether a trial can end after so many steps past the first, which took so long."""
    half = seconds > SLOW_SECONDS and steps == TRIAL_STEPS // 2
    return half or steps == TRIAL_STEPS or seconds > VERY_SLOW_SECONDS


def in_words(seconds: float) -> str:
    """Write a duration such as ``2 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min"
