"""How long runs will take: as long as finished runs of the same kind, else by timing some steps."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import typer

from nysact.experiments.config import Config
from nysact.experiments.data.small_images import would_be_downloaded
from nysact.experiments.devices import chosen_device
from nysact.experiments.environment import device_name
from nysact.experiments.run.display import title
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import StoredRun, load_run, load_runs, succeeded
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.jobs import local_jobs

# Steps that are timed: the first one refreshes the factors and warms up.
STEPS = 10
# What a process takes until its first step.
START_SECONDS = 5.0
# Settings that hardly change the duration of a run.
FREE = ("recipe", "row", "column", "sweep", "seed", "schedule", "label_smoothing")


def estimate(
    configs: Sequence[Config], executor: Executor, *, download: bool = True
) -> dict[str, float]:
    """Estimate the seconds of each run, by its id; 0 if unknown, as on a cluster, and say why."""
    if not configs or executor.cluster:
        return dict.fromkeys((config.run_id() for config in configs), 0.0)
    typer.echo("Estimating the duration, from finished runs or by timing a few steps ...")
    found: dict[str, float | str] = {**finished(executor)}
    new = {k: c for c in configs if (k := kind_of(c.model_dump())) not in found}
    away = {k: c for k, c in new.items() if not download and would_be_downloaded(c.data)}
    found |= {k: f"{c.data.name} is not here, and would be downloaded" for k, c in away.items()}
    here = [kind for kind in new if kind not in away]
    found |= zip(here, timed([new[kind] for kind in here], executor.cpu), strict=True)
    reasons: dict[str, list[str]] = defaultdict(list)
    for kind, config in new.items():
        if isinstance(reason := found[kind], str):
            reasons[reason].append(title(config))
    for reason, titles in reasons.items():
        runs = f"{len(titles)} kinds of runs, such as " if len(titles) > 1 else ""
        typer.echo(f"The duration is unknown of {runs}{titles[0]}: {reason}.")
    seconds = {c.run_id(): found[kind_of(c.model_dump())] for c in configs}
    return {run: 0.0 if isinstance(s, str) else s for run, s in seconds.items()}


def kind_of(config: Mapping[str, Any]) -> str:
    """Write out what the duration depends on; of the optimizer, what is no rate such as lr."""
    options = config["optimizer"]["options"].items()
    costly = {name: value for name, value in options if isinstance(value, int | str)}
    values = {name: value for name, value in config.items() if name not in FREE}
    return json.dumps({**values, "optimizer": (config["optimizer"]["name"], costly)})


def finished(executor: Executor) -> dict[str, float]:
    """The median duration of each kind of run that has finished on this device."""
    device = device_name(chosen_device("cpu" if executor.cpu else None))
    found: dict[str, list[float]] = defaultdict(list)
    for stored in load_runs(executor.root) if executor.root.is_dir() else []:
        if succeeded(stored) and stored.environment.get("device_name") == device:
            # A resumed run has a new config.json, but took at least as long as its steps.
            seconds = max(training_seconds(stored), span(stored) + START_SECONDS)
            found[kind_of(stored.config)].append(seconds)
    return {kind: median(seconds) for kind, seconds in found.items()}


def training_seconds(stored: StoredRun) -> float:
    """The time of a run's steps."""
    return float((stored.timings or {}).get("training_seconds", 0.0))


def span(stored: StoredRun) -> float:
    """The time from a run's first step to its end, evaluations included."""
    begin, end = (stored.path / name for name in ("config.json", "result.json"))
    return end.stat().st_mtime - begin.stat().st_mtime


def timed(configs: Sequence[Config], cpu: bool) -> list[float | str]:
    """Time some steps of each run in another process, which takes its memory with it."""
    if not configs:
        return []
    with local_jobs() as submit:
        job = submit(partial(time_all, configs, cpu), {})
        ended = "the process that timed it ended without a result"
        return [ended] * len(configs) if job.exception() else list(job.result())


def time_all(configs: Sequence[Config], cpu: bool) -> list[float | str]:
    """Time some steps and an evaluation of each run, or say why that failed."""
    return [time_one(config, cpu) for config in configs]


def time_one(config: Config, cpu: bool) -> float | str:
    """Time some steps and an evaluation, and scale them up; or say why that failed."""
    try:
        short = config.override([f"steps={STEPS}", f"evaluation_interval={STEPS}"])
        with tempfile.TemporaryDirectory(prefix="nysact-") as folder:
            stored = load_run(run(short, Path(folder), cpu=cpu))
            evaluation = span(stored) - training_seconds(stored)
    except Exception as error:  # The other runs are timed all the same.
        return " ".join(f"{type(error).__name__}: {error}".split())
    last = stored.metrics[-1]
    epoch = last["step"] / last["epoch"]
    steps = config.steps or (config.epochs or 1) * epoch
    evaluations = max(1, steps / (config.evaluation_interval or epoch))
    step = training_seconds(stored) / last["step"]
    return float(START_SECONDS + steps * step + evaluations * evaluation)
