"""Runs a configuration: trains, evaluates, stores, and resumes.

:func:`train` is the loop, and an example of how the library is used: ``NysAct`` takes the model
where other optimizers take its parameters, and nothing in the loop knows which optimizer it runs.
"""

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nysact.experiments.config import Config
from nysact.experiments.data.loaders import Share
from nysact.experiments.devices import cpu_threads, peak_memory, state_bytes
from nysact.experiments.environment import environment
from nysact.experiments.metrics import Records, metric_of
from nysact.experiments.models import build_model
from nysact.experiments.randomness import seeded, start_streams
from nysact.experiments.run.accelerator import arithmetic, make_accelerator
from nysact.experiments.run.display import Display, describe
from nysact.experiments.run.problem import LoadProblem, digest_of, load_problem
from nysact.experiments.run.store import RunFolder, folder_of
from nysact.experiments.run.tracking import check_trackers, log, start_trackers
from nysact.experiments.run.training import DivergedError, MakeModel, MakeOptimizer, Training

CHECKPOINT_SECONDS = 60.0


def train(
    training: Training,
    folder: RunFolder,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> str | None:
    """Train to the end, from the first step or that of a checkpoint; return why it ended early."""
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
                state = training.state_dict()
                if training.accelerator.is_main_process:
                    folder.save_checkpoint(state)
                saved = time.monotonic()
    except DivergedError as reason:
        return str(reason)
    return None


def record(training: Training, folder: RunFolder, display: Display) -> None:
    """Evaluate, store and show the metrics, and end a training whose loss is not finite."""
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
    """Whether a checkpoint is due; of several processes, the main one's clock decides."""
    if training.accelerator.num_processes == 1:
        return seconds >= interval
    if not training.is_check_due:
        return False
    # Whether or not a checkpoint follows, so that rounding does not depend on the clock.
    training.consolidate()
    return training.agree(seconds >= interval)


def run(
    config: Config,
    root: Path,
    *,
    display: Display | None = None,
    trackers: Sequence[str] = (),
    cpu: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    build: MakeModel | None = None,
    load: LoadProblem | None = None,
    make_optimizer: MakeOptimizer | None = None,
) -> Path:
    """Run a configuration in its folder ``root/recipe/run id``, unless it has finished there."""
    # build, load and make_optimizer replace the model, data and optimizer that it names.
    display = display or Display()
    folder = folder_of(config, root)
    if folder.finished:
        reuse(config, folder, display)
        return folder.path
    check_trackers(trackers)
    accelerator = make_accelerator(config, cpu=cpu)
    if not accelerator.is_main_process:
        display = Display()
    with (
        folder.locked() if accelerator.is_main_process else nullcontext(),
        cpu_threads(config.threads),
        arithmetic(config.precision),
        seeded(config.seed, accelerator.device),
    ):
        share = Share(accelerator.process_index, accelerator.num_processes)
        load = load or (lambda device, share: load_problem(config, device, share))
        build = build or (lambda: build_model(config.model.name, **config.model.options))
        problem = load(accelerator.device, share)
        training = Training(config, build, problem, accelerator, make_optimizer)
        resume(training, folder)
        start_trackers(training, trackers, folder.path)
        display.start(config, training.steps, training.step_number)
        try:
            failure = train(training, folder, display, checkpoint_seconds)
        except BaseException:
            display.stop("stopped; the same command resumes from the last checkpoint")
            raise
        finish(training, folder, failure)
        display.stop(f"{ending(training, folder, failure)}: {folder.path}")
    accelerator.end_training()
    return folder.path


def reuse(config: Config, folder: RunFolder, display: Display) -> None:
    """Say that a run is finished and how to rerun it, and make sure that its text is the same."""
    # Images of a name are the same everywhere; text is whatever lies in its place today.
    if config.data.name == "text":
        folder.check_data(digest_of(config.data))
    if os.environ.get("RANK", "0") == "0":
        message = f"already finished: {folder.path}; delete that folder to rerun it"
        display.on_reuse(config, message)


def resume(training: Training, folder: RunFolder) -> None:
    """Start the folder of a run, or go on from its checkpoint."""
    accelerator = training.accelerator
    digest = digest_of(training.config.data)
    folder.check_data(digest)
    state = folder.load_checkpoint()
    if state is not None:
        training.load_state_dict(state)
    else:
        # So that making the model and the optimizer does not shift the stream.
        start_streams(training.config.seed, accelerator.process_index)
    if accelerator.is_main_process:
        place = environment(accelerator.device, accelerator.num_processes)
        folder.start(training.config, place, digest)
        folder.cut_back(training.step_number)


def finish(training: Training, folder: RunFolder, failure: str | None) -> None:
    """Write the result of a run, or why it ended early."""
    if not training.accelerator.is_main_process:
        return
    timing = {
        **training.clock.summary(),
        **peak_memory(training.accelerator.device),
        "optimizer_state_bytes": state_bytes(training.optimizer),
    }
    arrays = None if failure else training.arrays()
    epochs = training.step_number / len(training.problem.train)
    result = {"steps": training.step_number, "epochs": epochs, "metrics": summary(folder.metrics())}
    folder.finish(result | ({"failure": failure} if failure else {}), timing, arrays)


def summary(records: Records) -> dict[str, dict[str, Any]]:
    """The last and the best value of each metric; one without a finite value has no best one."""
    last = records[-1] if records else {}
    names = [name for name in last if name not in ("step", "epoch", "covariance_norms")]
    best = {name: metric_of(name).best(records) for name in names}
    return {"final": {name: last[name] for name in names}, "best": best}


def ending(training: Training, folder: RunFolder, failure: str | None) -> str:
    """Say in a line how a run ended."""
    if failure:
        return f"failed at {failure}"
    shown = ", ".join(describe(summary(folder.metrics())["final"]))
    return f"{shown} after {training.step_number} steps, {sum(training.clock.seconds()):.0f} s"
