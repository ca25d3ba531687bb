"""Times a few steps of runs in a process of its own, which takes its memory with it as it ends.

It is started as ``python -m nysact.experiments.sweeps.trial``. The configurations come as a line
of JSON on the standard input, and for each goes out a line of JSON: its seconds, or why there are
none.
"""

import argparse
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from nysact.experiments.config import Config
from nysact.experiments.data.loaders import Share
from nysact.experiments.devices import cpu_threads
from nysact.experiments.errors import ExperimentError
from nysact.experiments.models import build_model
from nysact.experiments.randomness import seeded
from nysact.experiments.run.accelerator import make_accelerator
from nysact.experiments.run.problem import load_problem
from nysact.experiments.run.training import DivergedError, Training
from nysact.experiments.sweeps.worker import first_line

# A trial has so many steps; a slow one half of them, and a very slow one as many as fit. Its first
# step warms up; in each PERIOD of the others the rare costly steps have their share.
TRIAL_STEPS = 20
PERIOD = 10
SLOW_SECONDS = 2.0
VERY_SLOW_SECONDS = 10.0
# What a process takes until its first step.
START_SECONDS = 5.0
INTERVAL = "inv_interval"
# What begins a line with an answer, among whatever else is printed.
ANSWER = "trial: "


def timed(configs: Sequence[Config], *, cpu: bool) -> list[float | str]:
    """Time a few steps of runs in another process.

    Args:
        configs: The runs.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        For each run the seconds that it takes, or why they cannot be told.

    Raises:
        ExperimentError: If a run cannot be run.
    """
    if not configs:
        return []
    command = [sys.executable, "-m", __name__, *["--cpu"] * cpu]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # If the process has ended already, what it printed says why.
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps([config.model_dump() for config in configs]) + "\n")
                process.stdin.flush()
            # The other end takes the closing of its input for the end of this process.
            lines = process.stdout.read().splitlines()
        finally:
            process.kill()
    return answers(lines, len(configs))


def answers(lines: Sequence[str], count: int) -> list[float | str]:
    """Read what a trial process printed.

    Args:
        lines: All that it printed.
        count: How many runs it had to time.

    Returns:
        For each run the seconds, or why there are none.

    Raises:
        ExperimentError: If a run cannot be run.
    """
    found: list[float | str] = []
    for line in lines:
        if line.startswith(ANSWER):
            answer = json.loads(line.removeprefix(ANSWER))
            if "error" in answer:
                raise ExperimentError(answer["error"])
            found.append(answer.get("seconds", answer.get("failure")))
    last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
    return found + [f"the process that timed it ended: {last}"] * (count - len(found))


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
        steps, interval = training.steps, config.evaluation_interval or len(problem.train)
        step = seconds_a_step(training)
        start = time.perf_counter()
        training.evaluate()
        evaluation = time.perf_counter() - start
        del training
        often, share = refreshing_often(config)
        if often is not None:
            with_refreshes = seconds_a_step(Training(often, build, problem, accelerator))
            step += share * max(0.0, with_refreshes - step)
    return START_SECONDS + steps * step + math.ceil(steps / interval) * evaluation


def refreshing_often(config: Config) -> tuple[Config | None, float]:
    """Let refreshes come so often that a trial has some, where they come more seldom.

    Args:
        config: The run.

    Returns:
        The run with more refreshes, ``None`` if that is not needed; and how many of its refreshes
        the run itself has.
    """
    options = config.optimizer.options
    interval, statistics = options.get(INTERVAL, 1), options.get("cov_interval", 1)
    often = statistics * max(1, PERIOD // statistics)
    if interval <= often:
        return None, 1.0
    return config.override([f"optimizer.options.{INTERVAL}={often}"]), often / interval


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


def answer(config: Config, *, cpu: bool) -> dict[str, Any]:
    """Time a run, and say what is wrong if that fails, such as memory that ran out."""
    try:
        return {"seconds": trial(config, cpu=cpu)}
    except ExperimentError as error:
        return {"error": str(error)}
    except Exception as error:  # The other runs are timed all the same.
        return {"failure": " ".join(f"{type(error).__name__}: {error}".split())}


def configs_of(line: str) -> Iterator[Config]:
    """Read configurations."""
    for values in json.loads(line):
        yield Config.checked(values)


def main(arguments: list[str] | None = None) -> None:
    """Time the runs that the standard input has.

    Args:
        arguments: Those of the command line, ``None`` for this process's.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="train on the CPU in any case")
    cpu = parser.parse_args(arguments).cpu
    for config in configs_of(first_line()):
        print(f"{ANSWER}{json.dumps(answer(config, cpu=cpu))}", flush=True)
        # The next model needs the room.
        gc.collect()


if __name__ == "__main__":
    main()
