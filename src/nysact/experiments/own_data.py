"""A comparison of optimizers on a model and data of one's own."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

from nysact.experiments.baselines import find
from nysact.experiments.config import OWN, Config
from nysact.experiments.data.loaders import Share, StandardBatches, StandardLoader
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded
from nysact.experiments.run.display import display_for
from nysact.experiments.run.problem import EVALUATION_BATCH, LossFunction, Problem
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import StoredRun, load_run
from nysact.experiments.spread import mean_and_spread

Optimizers = Sequence[str] | Mapping[str, Mapping[str, Any]]
# What the table shows: the metric, its heading, its digits.
COLUMNS = (
    ("test_accuracy", "test accuracy, %", 2),
    ("test_loss", "test loss", 4),
    ("train_loss", "training loss", 4),
)


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison; written out as a table.

    Args:
        runs: The stored runs, of one optimizer after the other.
    """

    runs: Sequence[StoredRun]

    def table(self) -> Table:
        """Lay out mean and standard deviation over the seeds for each optimizer."""
        by_row: dict[str, list[StoredRun]] = {}
        for stored in self.runs:
            by_row.setdefault(stored.config["row"], []).append(stored)
        table = Table("optimizer", box=None, pad_edge=False)
        finals = [final(stored) for stored in self.runs]
        shown = [column for column in COLUMNS if any(column[0] in each for each in finals)]
        for _, heading, _ in shown:
            table.add_column(heading, justify="right")
        table.add_column("ms a step", justify="right")
        for row, runs in by_row.items():
            cells = [
                written([final(stored).get(name) for stored in runs], digits)
                for name, _, digits in shown
            ]
            times = [(stored.timings or {})["mean_step_seconds"] * 1000 for stored in runs]
            table.add_row(row, *cells, written(times, 2))
        return table

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self.table())
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def compare(
    model: Callable[[], nn.Module],
    train_set: Dataset[Any],
    test_set: Dataset[Any],
    optimizers: Optimizers = ("sgd", "adamw", "nysact"),
    *,
    epochs: int = 10,
    batch_size: int = 128,
    seeds: Sequence[int] = (0,),
    loss: LossFunction = F.cross_entropy,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    name: str = "comparison",
    runs: Path | str = "runs",
    workers: int = 0,
    threads: int | None = None,
    cpu: bool = False,
) -> Comparison:
    """Train a model with several optimizers, and compare what comes of it.

    Runs are stored as those of ``nysact train`` are, below ``runs/name``: one that is finished is
    not run again, and one that was stopped goes on where it was. The learning rate falls to 0
    along half a cosine.

    Args:
        model: Makes the untrained model, with random weights of the global stream.
        train_set: Gives an input and a target for each index, and has a length. Its transforms
            may draw from the global random streams.
        test_set: Likewise.
        optimizers: Names of ``nysact.experiments.baselines``, or names with settings in the place
            of the defaults, such as ``{"sgd": {"lr": 0.05}, "nysact": {"rank": 20}}``.
        epochs: Passes over the training set.
        batch_size: Samples a step.
        seeds: One training of each optimizer for each seed.
        loss: Maps the model's output and the targets to the mean loss.
        precision: Of the arithmetic.
        name: Name of the comparison. Another model, loss or data set is told from the former;
            where only samples in the middle of a data set differ, take another name.
        runs: Folder of all runs.
        workers: Processes that read samples, 0 for none but this one.
        threads: Threads on a CPU, ``None`` for torch's default.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The comparison; ``print`` it to see a table.
    """
    sizes = size_of(train_set, "train_set"), size_of(test_set, "test_set")
    chosen = optimizers if isinstance(optimizers, Mapping) else {each: {} for each in optimizers}
    mark = fingerprint(model, loss, train_set, test_set, sizes)
    configs = [
        Config.checked(
            {
                "recipe": name,
                "row": find(optimizer).title,
                "column": name,
                "seed": seed,
                "model": {"name": OWN},
                "data": {"name": OWN, "fingerprint": mark, "workers": workers},
                "optimizer": {"name": optimizer, "options": settings},
                "schedule": {"every": "step"},
                "batch_size": batch_size,
                "epochs": epochs,
                "precision": precision,
                "threads": threads,
            }
        )
        for optimizer, settings in chosen.items()
        for seed in seeds
    ]
    display = display_for(Console())

    def load(seed: int) -> Callable[[torch.device, Share], Problem]:
        return lambda device, share: Problem(
            StandardLoader(train_set, sizes[0], batch_size, seed, device, share, workers),
            StandardBatches(test_set, sizes[1], EVALUATION_BATCH, device, share, workers),
            loss,
        )

    paths = [
        run(config, Path(runs), display=display, cpu=cpu, build=model, load=load(config.seed))
        for config in configs
    ]
    return Comparison([load_run(path) for path in paths])


def size_of(dataset: Any, name: str) -> int:
    """Give the length of a data set.

    Args:
        dataset: The data set.
        name: What the caller calls it.

    Returns:
        The number of samples.

    Raises:
        ExperimentError: If it has none, or its samples are no pairs.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or not len(dataset):
        raise ExperimentError(
            f"{name} is a {type(dataset).__name__}: expected a data set with a length from 1 up, "
            "whose samples an index picks, such as torch.utils.data.TensorDataset"
        )
    with seeded(0):
        sample = dataset[0]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise ExperimentError(
            f"{name}[0] is a {type(sample).__name__}: expected a pair of an input and a target"
        )
    return len(dataset)


def fingerprint(
    model: Callable[[], nn.Module],
    loss: LossFunction,
    train_set: Any,
    test_set: Any,
    sizes: tuple[int, int],
) -> str:
    """Sum up what a comparison depends on, so that another one is not taken for it.

    Args:
        model: Makes the model.
        loss: The loss.
        train_set: The training set, of which the first and last samples count.
        test_set: The test set, likewise.
        sizes: The sizes of both.

    Returns:
        A hash.
    """
    with seeded(0):
        made = model()
        samples = [part[i] for part in (train_set, test_set) for i in (0, len(part) - 1)]
    digest = hashlib.sha256(f"{made} {getattr(loss, '__qualname__', loss)} {sizes}".encode())
    for param in made.parameters():
        digest.update(str(tuple(param.shape)).encode())
    for sample in samples:
        for item in sample:
            digest.update(bytes_of(item))
    return digest.hexdigest()[:16]


def bytes_of(item: Any) -> bytes:
    """Give the content of a tensor or a number as bytes."""
    if isinstance(item, Tensor):
        return item.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    return repr(item).encode()


def final(stored: StoredRun) -> dict[str, float | None]:
    """Give the last metrics of a finished run."""
    assert stored.result is not None
    found: dict[str, float | None] = stored.result["metrics"]["final"]
    return found


def written(values: Sequence[float | None], digits: int) -> str:
    """Write mean and standard deviation; a value that is not there makes it a dash."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    mean, spread = mean_and_spread(known)
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(known) > 1 else "")
