"""The trackers that are told how a run goes."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

from nysact.experiments.config.assignments import dotted
from nysact.experiments.errors import ExperimentError, unknown

if TYPE_CHECKING:
    from nysact.experiments.run.training import Training

# The name of the project under which Weights & Biases and trackio file the runs.
PROJECT = "nysact"
# The trackers, and the extra of this package that brings each.
EXTRAS = {"tensorboard": "experiments", "wandb": "wandb", "trackio": "trackio"}


def trackers_of(asked: Sequence[str] | None) -> list[str]:
    """Read the option ``--track``: TensorBoard unless something else is asked for."""
    trackers = [name for name in asked or ["tensorboard"] if name != "none"]
    check_trackers(trackers)
    return trackers


def check_trackers(trackers: Sequence[str]) -> None:
    """Make sure that trackers exist and are installed."""
    for name in trackers:
        if name not in EXTRAS:
            raise ExperimentError(f"there is no tracker {unknown(name, EXTRAS)}")
        if find_spec(name) is None:
            raise ExperimentError(
                f"the tracker {name} is not installed; install it with: "
                f'pip install "nysact[{EXTRAS[name]}]", or leave it out'
            )


def start_trackers(training: "Training", trackers: Sequence[str], folder: Path) -> None:
    """Start trackers; a resumed run takes back what it had told after its checkpoint."""
    again: Any = {"name": folder.name, "group": training.config.recipe, "resume": "allow"}
    first = training.step_number + 1
    makers = {
        "tensorboard": lambda: TensorBoardTracker("tensorboard", folder, purge_step=first),
        "wandb": lambda: WandBTracker(PROJECT, id=folder.name, dir=str(folder), **again),
        "trackio": lambda: TrackioTracker(PROJECT, **again),
    }
    for name in trackers:
        tracker = makers[name]()
        tracker.start()
        training.accelerator.trackers.append(tracker)


def log(training: "Training", metrics: Mapping[str, Any]) -> None:
    """Tell the trackers of an evaluation."""
    if not training.accelerator.trackers:
        return
    values = {"learning_rate": training.schedule.get_last_lr()[0]}
    values |= {name.replace(".", "/", 1): value for name, value in dotted(metrics).items()}
    training.accelerator.log(values, step=values.pop("step"))
