"""The demo: SGD, AdamW and NysAct on real data, with a table and a picture at the end."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from nysact.experiments.data.images import Data
from nysact.experiments.demo.comparison import Entry, Plan, compare
from nysact.experiments.demo.contenders import CONTENDERS
from nysact.experiments.demo.curves import save_curves
from nysact.experiments.demo.progress import display_for
from nysact.experiments.demo.table import result_table
from nysact.experiments.demo.tasks import TASKS, Task
from nysact.experiments.errors import ExperimentError
from nysact.experiments.threads import cpu_threads


@dataclass(frozen=True)
class DemoOptions:
    """What the user can choose; ``None`` stands for the default of the data.

    Args:
        data: Name of a task.
        folder: Folder of the data's files.
        train_size: Number of training samples.
        epochs: Passes over them.
        seeds: Number of trainings of each optimizer.
        batch_size: Samples a batch.
        output: Folder for the picture.
        device: Name of the device, ``None`` for an accelerator if there is one, else the CPU.

    Raises:
        ExperimentError: If there is no such task, or it reads no folder.
    """

    data: str = "digits"
    folder: Path | None = None
    train_size: int | None = None
    epochs: int | None = None
    seeds: int = 3
    batch_size: int | None = None
    output: Path = Path("nysact-demo")
    device: str | None = None

    def __post_init__(self) -> None:
        if self.data not in TASKS:
            raise ExperimentError(f"--data {self.data}: expected one of {', '.join(TASKS)}")
        if self.folder is not None and not TASKS[self.data].takes_folder:
            raise ExperimentError(
                f"--folder {self.folder}: --data {self.data} reads no folder; leave --folder out"
            )


def run_demo(options: DemoOptions, console: Console) -> Path:
    """Compare the optimizers, show the progress and the table, and save the picture.

    Args:
        options: What the user chose.
        console: Where to show it.

    Returns:
        The picture's file.

    Raises:
        ExperimentError: If the options do not fit the data, or something cannot be read or
            written.
    """
    task = TASKS[options.data]
    device = chosen_device(options.device)
    make_writable(options.output)
    data = task.load(options.folder).with_train_size(options.train_size or task.train_size)
    plan = plan_for(task, options)
    check_batch_size(plan.batch_size, data)
    title = describe(task, plan, data)
    console.print(f"Training on {device}", highlight=False)
    rounds = len(plan.seeds) * plan.epochs * (len(data.train) // plan.batch_size)
    with (
        cpu_threads(task.threads),
        display_for(console, len(plan.seeds), plan.epochs, rounds) as display,
    ):
        summaries = compare(plan, data.to(device), display.on_step, display.on_epoch)
    console.print(result_table(title, summaries))
    picture = options.output / f"demo-{options.data}.png"
    save_curves(title, summaries, picture)
    console.print(f"Curves: {picture.resolve()}", soft_wrap=True, highlight=False)
    return picture


def plan_for(task: Task, options: DemoOptions) -> Plan:
    """Fill in the defaults of the task where the user chose nothing."""
    return Plan(
        entries=[Entry(contender, task.learning_rates[contender.name]) for contender in CONTENDERS],
        build_model=task.build_model,
        epochs=options.epochs or task.epochs,
        batch_size=options.batch_size or task.batch_size,
        seeds=range(options.seeds),
    )


def describe(task: Task, plan: Plan, data: Data) -> str:
    """Say in two lines what is trained."""
    return (
        f"{task.title}\n{len(data.train):,} training and {len(data.test):,} test images, "
        f"batch size {plan.batch_size}, epochs: {plan.epochs}, seeds: {len(plan.seeds)}"
    )


def chosen_device(name: str | None) -> torch.device:
    """Find the device to train on.

    Args:
        name: Its name, or ``None`` for an accelerator if there is one, else the CPU.

    Returns:
        The device.

    Raises:
        ExperimentError: If there is no such device.
    """
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(
            f"--device {name}: not available ({reason}); expected cpu, cuda, cuda:1, mps or the "
            "like; leave --device out to have one chosen"
        ) from error
    return device


def make_writable(folder: Path) -> None:
    """Make a folder, and make sure before the training that a file can be written there.

    Args:
        folder: The folder.

    Raises:
        ExperimentError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExperimentError(
            f"--output {folder}: cannot be written to ({error.strerror}); "
            "expected a folder that exists or can be made"
        ) from error


def check_batch_size(batch_size: int, data: Data) -> None:
    """Make sure that an epoch has at least one whole batch.

    Args:
        batch_size: Samples a batch.
        data: The data.

    Raises:
        ExperimentError: If the training set is smaller than a batch.
    """
    if batch_size > len(data.train):
        raise ExperimentError(
            f"--batch-size {batch_size}: the training set has {len(data.train)} samples; "
            "choose a smaller batch or a larger --train-size"
        )
