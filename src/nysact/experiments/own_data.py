"""A comparison of optimizers on a model and data of one's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from nysact.experiments.baselines import find
from nysact.experiments.config import OWN, Config
from nysact.experiments.data.loaders import Share, StandardBatches, StandardLoader
from nysact.experiments.errors import ExperimentError
from nysact.experiments.fingerprint import fingerprint
from nysact.experiments.randomness import seeded
from nysact.experiments.run.display import display_for
from nysact.experiments.run.failure import failure_of, succeeded
from nysact.experiments.run.problem import EVALUATION_BATCH, LossFunction, Problem
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import StoredRun, load_run
from nysact.experiments.spread import mean_and_spread

Settings = Mapping[str, Any]
Optimizers = Sequence[str] | Mapping[str, Settings | tuple[str, Settings]]
# Samples of a data set that tell it from another.
SAMPLES = 16
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
        runs: The stored runs, of one optimizer after the other: each has its folder (``path``), its
            settings (``config``), its evaluations (``metrics``) and its end (``result``).
    """

    runs: Sequence[StoredRun]

    def rows(self) -> list[dict[str, Any]]:
        """List the runs with their last metrics, such as for ``pandas.DataFrame``.

        Returns:
            For each run ``"optimizer"``, ``"seed"``, ``"path"`` and ``"failure"``, which is
            ``None`` unless it diverged; then ``"mean_step_seconds"`` and the metrics of the last
            evaluation, which a run that diverged has not.
        """
        return [
            {
                "optimizer": stored.config["row"],
                "seed": stored.config["seed"],
                "path": stored.path,
                "failure": failure_of(stored),
                **({"mean_step_seconds": step_seconds(stored)} | final(stored)),
            }
            for stored in self.runs
        ]

    def table(self) -> Table:
        """Lay out mean and standard deviation over the seeds that did not fail, and which did."""
        by_row: dict[str, list[StoredRun]] = {}
        for stored in self.runs:
            by_row.setdefault(stored.config["row"], []).append(stored)
        table = Table("optimizer", box=None, pad_edge=False)
        finals = [final(stored) for stored in self.runs]
        shown = [column for column in COLUMNS if any(column[0] in each for each in finals)]
        for _, heading, _ in shown:
            table.add_column(heading, justify="right")
        table.add_column("ms a step", justify="right")
        if not all(map(succeeded, self.runs)):
            table.add_column("")
        for row, runs in by_row.items():
            good = [stored for stored in runs if succeeded(stored)]
            cells = [
                written([final(stored).get(name) for stored in good], digits)
                for name, _, digits in shown
            ]
            times = written([step_seconds(stored) * 1000 for stored in good], 2)
            table.add_row(row, *cells, times, *failures(runs))
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
    schedule: Mapping[str, Any] | None = None,
    evaluation_interval: int | None = None,
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32",
    name: str = "comparison",
    runs: Path | str = "runs",
    trackers: Sequence[str] = ("tensorboard",),
    workers: int = 0,
    threads: int | None = None,
    cpu: bool = False,
) -> Comparison:
    """Train a model with several optimizers, and compare what comes of it.

    Runs are stored as those of ``nysact train`` are, below ``runs/name``: one that is finished is
    not run again, which is said, and one that was stopped goes on where it was.

    Args:
        model: Makes the untrained model, with random weights of the global stream.
        train_set: Gives an input and a target for each index, and has a length. Its transforms
            may draw from the global random streams.
        test_set: Likewise.
        optimizers: Names of ``nysact.experiments.baselines``, or names with settings in the place
            of the defaults, such as ``{"sgd": {"lr": 0.05}, "nysact": {"rank": 20}}``, or labels of
            one's own, such as ``{"rank 10": ("nysact", {"rank": 10}), "rank 20": ...}``.
        epochs: Passes over the training set.
        batch_size: Samples a step.
        seeds: One training of each optimizer for each seed.
        loss: Maps the model's output and the targets to the mean loss.
        schedule: Settings of :class:`~nysact.experiments.config.Schedule`, such as
            ``{"name": "constant"}`` or ``{"warmup_epochs": 1}``; by default the learning rate falls
            to 0 along half a cosine, step by step.
        evaluation_interval: Steps between evaluations, ``None`` for one after each epoch.
        precision: Of the arithmetic.
        name: Name of the comparison. Another model, loss or data set is told from the former, by
            :mod:`nysact.experiments.fingerprint`; of a data set of another kind than
            ``TensorDataset`` 16 samples are compared, so where only others differ, take another
            name.
        runs: Folder of all runs.
        trackers: What else is told: ``"tensorboard"``, ``"wandb"``, ``"trackio"``.
        workers: Processes that read samples, 0 for none but this one.
        threads: Threads on a CPU, ``None`` for torch's default.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The comparison; ``print`` it to see a table, or take its ``rows()`` or ``runs``.
    """
    sizes = size_of(train_set, "train_set"), size_of(test_set, "test_set")
    chosen = labelled(optimizers)
    mark = mark_of(model, loss, train_set, test_set)
    configs = [
        Config.checked(
            {
                "recipe": name,
                "row": label,
                "column": name,
                "seed": seed,
                "model": {"name": OWN},
                "data": {"name": OWN, "fingerprint": mark, "workers": workers},
                "optimizer": {"name": optimizer, "options": settings},
                "schedule": {"every": "step", **(schedule or {})},
                "batch_size": batch_size,
                "epochs": epochs,
                "evaluation_interval": evaluation_interval,
                "precision": precision,
                "threads": threads,
            }
        )
        for label, (optimizer, settings) in chosen.items()
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
        run(
            config,
            Path(runs),
            display=display,
            trackers=trackers,
            cpu=cpu,
            build=model,
            load=load(config.seed),
        )
        for config in configs
    ]
    return Comparison([load_run(path) for path in paths])


def labelled(optimizers: Optimizers) -> dict[str, tuple[str, Settings]]:
    """Give each optimizer its label.

    Args:
        optimizers: As :func:`compare` takes them.

    Returns:
        Label to name and settings; a name's label is the optimizer's title.

    Raises:
        ExperimentError: If a label occurs twice, or settings are none.
    """
    found: dict[str, tuple[str, Settings]] = {}
    given = optimizers if isinstance(optimizers, Mapping) else None
    for key in optimizers:
        value = {} if given is None else given[key]
        pair = isinstance(value, tuple | list) and len(value) == 2
        name, settings = value if pair else (key, value)
        if not isinstance(name, str) or not isinstance(settings, Mapping):
            raise ExperimentError(
                f"optimizers[{key!r}] is {value!r}: expected settings such as {{'lr': 0.05}}, or "
                "an optimizer's name and settings such as ('nysact', {'rank': 20})"
            )
        label = key if pair else find(name).title
        if label in found:
            raise ExperimentError(
                f"optimizers has {label!r} twice: expected different labels, such as "
                "{'rank 10': ('nysact', {'rank': 10}), 'rank 20': ('nysact', {'rank': 20})}"
            )
        found[label] = name, settings
    return found


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


def mark_of(
    model: Callable[[], nn.Module], loss: LossFunction, train_set: Any, test_set: Any
) -> str:
    """Sum up what a comparison depends on, so that another one is not taken for it.

    Args:
        model: Makes the model, whose classes and initial weights count.
        loss: The loss.
        train_set: The training set, of which some samples count.
        test_set: The test set, likewise.

    Returns:
        A hash.

    Raises:
        ExperimentError: If there is but one model.
    """
    with seeded(0):
        made = model()
    if model() is made:
        raise ExperimentError(
            "model gives the same model each time, which one training after the other would go on "
            "with: expected a function that makes a new one, such as lambda: Net(10)"
        )
    return fingerprint(made, loss, *(content(part) for part in (train_set, test_set)))


def content(dataset: Any) -> list[Any]:
    """Give what stands for a data set: its size, its class, and some samples from all over it."""
    if type(dataset) is TensorDataset:
        return [*dataset.tensors]
    last = len(dataset) - 1
    places = sorted({round(i * last / (SAMPLES - 1)) for i in range(SAMPLES)})
    with seeded(0):
        return [len(dataset), type(dataset), *(dataset[place] for place in places)]


def final(stored: StoredRun) -> dict[str, float | None]:
    """Give the last metrics of a run, none if it diverged."""
    assert stored.result is not None
    found: dict[str, float | None] = stored.result["metrics"]["final"]
    return found if succeeded(stored) else {}


def step_seconds(stored: StoredRun) -> float:
    """Give the mean time of a step."""
    seconds: float = (stored.timings or {})["mean_step_seconds"]
    return seconds


def failures(runs: Sequence[StoredRun]) -> list[str]:
    """Write in one cell which of several runs failed, and when; no cell if none did."""
    found = {stored.config["seed"]: failure_of(stored) for stored in runs}
    said = [
        f"seed {seed} failed at {failure.partition(':')[0]}"
        for seed, failure in found.items()
        if failure is not None
    ]
    return ["; ".join(said)] if said else []


def written(values: Sequence[float | None], digits: int) -> str:
    """Write mean and standard deviation; a dash if there is no value, or one is not there."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "–"
    mean, spread = mean_and_spread(known)
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(known) > 1 else "")
