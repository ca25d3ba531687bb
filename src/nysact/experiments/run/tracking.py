"""The accelerator of a run, and the trackers that are told how it goes."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.run.precision import AUTOCAST

if TYPE_CHECKING:
    from nysact.experiments.run.training import Training

# The name of the project under which Weights & Biases and trackio file the runs.
PROJECT = "nysact"
# The trackers, and the extra of this package that brings each.
EXTRAS = {"tensorboard": "experiments", "wandb": "wandb", "trackio": "trackio"}


def make_accelerator(config: Config, *, cpu: bool) -> Accelerator:
    """Make what knows of device, precision and processes.

    Args:
        config: The configuration.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The accelerator.

    Raises:
        ExperimentError: If the device does not know the precision.
    """
    # What an earlier run of this process chose would be kept otherwise.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    autocast = AUTOCAST[config.precision]
    accelerator = Accelerator(mixed_precision=autocast, cpu=cpu)
    lacking = autocast != "no" and not accelerator.native_amp
    if lacking or (config.precision == "tf32" and accelerator.device.type != "cuda"):
        raise ExperimentError(
            f"precision={config.precision}: {accelerator.device.type} has no such arithmetic; set "
            "precision=fp32, or bf16, which a CPU has too"
        )
    return accelerator


def trackers_of(asked: Sequence[str] | None) -> list[str]:
    """Read the option ``--track`` of commands: TensorBoard unless something else is asked for.

    Args:
        asked: What the user asked for, ``None`` for nothing in particular.

    Returns:
        Names of trackers that can be used.
    """
    trackers = [name for name in asked or ["tensorboard"] if name != "none"]
    check_trackers(trackers)
    return trackers


def check_trackers(trackers: Sequence[str]) -> None:
    """Make sure that trackers can be used.

    Args:
        trackers: Their names.

    Raises:
        ExperimentError: If one is unknown or not installed.
    """
    for name in trackers:
        if name not in EXTRAS:
            raise ExperimentError(f"there is no tracker {unknown(name, EXTRAS)}")
        if find_spec(name) is None:
            raise ExperimentError(
                f"the tracker {name} is not installed; install it with: "
                f'pip install "nysact[{EXTRAS[name]}]", or leave it out'
            )


def start_trackers(training: "Training", trackers: Sequence[str], folder: Path) -> None:
    """Start the trackers; a run that goes on takes back what it had told after its checkpoint.

    Args:
        training: The run.
        trackers: Their names.
        folder: The run's folder; TensorBoard's files go into it.
    """
    options: dict[str, Any] = {
        "name": folder.name,
        "group": training.config.recipe,
        "resume": "allow",
    }
    makers = {
        "tensorboard": lambda: TensorBoardTracker(
            "tensorboard", folder, purge_step=training.step_number + 1
        ),
        "wandb": lambda: WandBTracker(PROJECT, id=folder.name, dir=str(folder), **options),
        "trackio": lambda: TrackioTracker(PROJECT, **options),
    }
    for name in trackers:
        tracker = makers[name]()
        tracker.start()
        training.accelerator.trackers.append(tracker)


def log(training: "Training", metrics: Mapping[str, Any]) -> None:
    """Tell the trackers of an evaluation.

    Args:
        training: The run.
        metrics: The metrics.
    """
    if not training.accelerator.trackers:
        return
    values = {"learning_rate": training.schedule.get_last_lr()[0]}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            values |= {f"{name}/{key}": item for key, item in value.items()}
        elif name != "step":
            values[name] = value
    training.accelerator.log(values, step=metrics["step"])
