"""Runs a configuration: trains, evaluates, stores, and goes on where it was stopped.

:func:`train` is the loop, and an example of how the library is used: ``NysAct`` takes the model
where other optimizers take its parameters, and nothing in the loop knows which optimizer it runs.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from nysact.experiments.config import Config
from nysact.experiments.data.loaders import Share
from nysact.experiments.models import build_model
from nysact.experiments.randomness import seeded, start_streams
from nysact.experiments.run.clock import summary
from nysact.experiments.run.digest import digest_of
from nysact.experiments.run.display import Display, NoDisplay
from nysact.experiments.run.environment import environment
from nysact.experiments.run.precision import arithmetic
from nysact.experiments.run.problem import Problem, load_problem
from nysact.experiments.run.store import RunFolder
from nysact.experiments.run.tracking import (
    check_trackers,
    log,
    make_accelerator,
    start_trackers,
)
from nysact.experiments.run.training import DivergedError, Training
from nysact.experiments.state_size import state_bytes
from nysact.experiments.threads import cpu_threads

CHECKPOINT_SECONDS = 60.0


def train(
    training: Training,
    folder: RunFolder,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> str | None:
    """Train to the end, from the first step or from that of a checkpoint.

    Args:
        training: The run.
        folder: Where it is stored.
        display: Where it is shown.
        checkpoint_seconds: Seconds between checkpoints; there is one after each evaluation too.

    Returns:
        Why the run ended early, ``None`` if it did not.
    """
    saved = time.monotonic()
    try:
        for inputs, targets in training.batches():
            loss = training.step(inputs, targets)
            display.on_step(training.step_number, loss)
            due = training.is_evaluation_due or (
                training.is_check_due and training.first_failure() is not None
            )
            if due:
                record(training, folder, display)
            if due or is_time(training, time.monotonic() - saved, checkpoint_seconds):
                save(training, folder)
                saved = time.monotonic()
    except DivergedError as reason:
        return str(reason)
    return None


def record(training: Training, folder: RunFolder, display: Display) -> None:
    """Evaluate, and write down and show what came of it.

    Args:
        training: The run.
        folder: Where it is stored.
        display: Where it is shown.

    Raises:
        DivergedError: If the training loss is not finite.
    """
    failure = training.first_failure()
    metrics = training.evaluate()
    timing = {"step": training.step_number, "seconds": sum(training.clock.seconds())}
    if training.accelerator.is_main_process:
        folder.append(metrics, timing)
    log(training, metrics)
    display.on_evaluation(metrics)
    if failure is not None:
        raise DivergedError(f"step {failure}: the training loss is not finite")


def is_time(training: Training, seconds: float, interval: float) -> bool:
    """Tell whether a checkpoint is due; of several processes, the main one's clock decides.

    Args:
        training: The run.
        seconds: Seconds since the last checkpoint.
        interval: Seconds between checkpoints.

    Returns:
        Whether to write one now; the same in all processes.
    """
    if training.accelerator.num_processes == 1:
        return seconds >= interval
    if not training.is_check_due:
        return False
    # Whether or not a checkpoint follows, lest the rounding depend on the clock.
    training.consolidate()
    return training.agree(seconds >= interval)


def save(training: Training, folder: RunFolder) -> None:
    """Write a checkpoint."""
    state = training.state_dict()
    if training.accelerator.is_main_process:
        folder.save_checkpoint(state)


def run(
    config: Config,
    root: Path,
    *,
    display: Display | None = None,
    trackers: Sequence[str] = (),
    cpu: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    build: Callable[[], nn.Module] | None = None,
    load: Callable[[torch.device, Share], Problem] | None = None,
) -> Path:
    """Run a configuration, unless its folder has a result, from where its checkpoint is.

    Args:
        config: The configuration.
        root: The folder of all runs; this one goes to ``root/recipe/run id``.
        display: Where to show how it goes.
        trackers: What else to tell: ``"tensorboard"``, ``"wandb"``, ``"trackio"``.
        cpu: Whether to train on the CPU where there is an accelerator.
        checkpoint_seconds: Seconds between checkpoints.
        build: Makes the model, in the place of the one that the configuration names.
        load: Loads the data, likewise.

    Returns:
        The run's folder.
    """
    display = display or NoDisplay()
    folder = RunFolder(root / config.recipe / config.run_id())
    if folder.finished:
        reuse(config, folder, display)
        return folder.path
    check_trackers(trackers)
    accelerator = make_accelerator(config, cpu=cpu)
    if not accelerator.is_main_process:
        display = NoDisplay()
    with (
        main_process_holds(folder, accelerator),
        cpu_threads(config.threads),
        arithmetic(config.precision),
        seeded(config.seed, accelerator.device),
    ):
        share = Share(accelerator.process_index, accelerator.num_processes)
        load = load or (lambda device, share: load_problem(config, device, share))
        build = build or (lambda: build_model(config.model.name, **config.model.options))
        problem = load(accelerator.device, share)
        training = Training(config, build, problem, accelerator)
        resume(training, folder)
        start_trackers(training, trackers, folder.path)
        display.start(config, training.steps, training.step_number)
        try:
            failure = train(training, folder, display, checkpoint_seconds)
        except BaseException:
            display.stop("stopped; the same command goes on from the last checkpoint")
            raise
        finish(training, folder, failure)
        display.stop(ending(training, failure))
    accelerator.end_training()
    return folder.path


def reuse(config: Config, folder: RunFolder, display: Display) -> None:
    """Say that a run is finished, and make sure that it is of the same data.

    Args:
        config: The configuration.
        folder: The run's folder.
        display: Where to say so.
    """
    # Images of a name are the same everywhere; text is whatever lies in its place today.
    if config.data.name == "text":
        folder.check_data(digest_of(config.data))
    if os.environ.get("RANK", "0") == "0":
        display.on_reuse(
            config, f"finished before: {folder.path}; to have it anew, delete that folder"
        )


def resume(training: Training, folder: RunFolder) -> None:
    """Start the folder of a run, or go on from its checkpoint.

    Args:
        training: The run at its first step.
        folder: Its folder.
    """
    accelerator = training.accelerator
    digest = digest_of(training.config.data)
    folder.check_data(digest)
    state = folder.load_checkpoint()
    if state is not None:
        training.load_state_dict(state)
    else:
        # Neither the making of the model nor that of the optimizer shall shift the stream.
        start_streams(training.config.seed, accelerator.process_index)
    if accelerator.is_main_process:
        place = environment(accelerator.device, accelerator.num_processes)
        folder.start(training.config, place, digest)
        folder.cut_back(training.step_number)


def finish(training: Training, folder: RunFolder, failure: str | None) -> None:
    """Write what came of a run.

    Args:
        training: The run.
        folder: Its folder.
        failure: Why it ended early, if it did.
    """
    if not training.accelerator.is_main_process:
        return
    timing = summary(training.clock)
    timing["optimizer_state_bytes"] = state_bytes(training.optimizer)
    arrays = None if failure else training.arrays()
    folder.finish(training.result(failure), timing, arrays)


def ending(training: Training, failure: str | None) -> str:
    """Say in a line how a run ended."""
    if failure:
        return f"failed at {failure}"
    final = training.result()["metrics"]["final"]
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in final.items())
    return f"{shown} after {training.step_number} steps, {sum(training.clock.seconds()):.0f} s"


@contextmanager
def main_process_holds(folder: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """Lock the folder by one process for all."""
    if not accelerator.is_main_process:
        yield
        return
    with folder.locked():
        yield
