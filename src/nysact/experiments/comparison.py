"""A comparison of optimizers on the caller's own model and data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import Dataset, Subset

from nysact.experiments.config import OWN, Config
from nysact.experiments.data.images import held_out_of
from nysact.experiments.data.loaders import Share, StandardBatches, StandardLoader
from nysact.experiments.files import check_writable
from nysact.experiments.inputs import (
    Candidate,
    Optimizers,
    candidates,
    check_held_out,
    check_target,
    facts_of,
    made_model,
    size_of,
)
from nysact.experiments.losses import LossFunction
from nysact.experiments.run.display import display_for
from nysact.experiments.run.problem import EVALUATION_BATCH, Problem
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import StoredRun, failure_of, folder_of, load_run, succeeded
from nysact.experiments.summary import final, milliseconds, step_seconds, summary_table
from nysact.experiments.sweeps.tuning import Cell, Tuning

# What the table shows of each metric that the runs have.
HEADINGS = {
    "test_accuracy": "test accuracy, %",
    "test_loss": "test loss",
    "train_loss": "training loss",
}


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison; prints as a table.

    Args:
        runs: The stored runs, of one optimizer after the other: each has its folder (``path``), its
            settings (``config``), its evaluations (``metrics``) and its end (``result``).
    """

    runs: Sequence[StoredRun]

    def rows(self) -> list[dict[str, Any]]:
        """List the runs with their last metrics, such as for ``pandas.DataFrame``.

        Returns:
            For each run ``"optimizer"``, ``"seed"``, ``"path"`` and ``"failure"``, which is
            ``None`` unless it diverged; then ``"learning_rate"``, ``"mean_step_seconds"`` and the
            metrics of the last evaluation, which a run that diverged does not have.
        """
        return [
            {
                "optimizer": stored.config["row"],
                "seed": stored.config["seed"],
                "path": stored.path,
                "failure": failure_of(stored),
                "learning_rate": stored.config["optimizer"]["options"].get("lr"),
                "mean_step_seconds": step_seconds(stored),
                **last_metrics(stored),
            }
            for stored in self.runs
        ]

    def table(self) -> Table:
        """Lay out mean and standard deviation over the seeds that did not fail, and which did."""
        known = {name for stored in self.runs for name in last_metrics(stored)}
        columns = {heading: final(name) for name, heading in HEADINGS.items() if name in known}
        return summary_table(self.runs, {**columns, "ms a step": milliseconds})

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self.table())
        return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def last_metrics(stored: StoredRun) -> dict[str, float | None]:
    """The last metrics of a run, none if it diverged."""
    assert stored.result is not None
    found: dict[str, float | None] = stored.result["metrics"]["final"]
    return found if succeeded(stored) else {}


def compare(
    model: Callable[[], nn.Module],
    train_set: Dataset[Any],
    test_set: Dataset[Any],
    optimizers: Optimizers = ("sgd", "adamw", "nysact"),
    *,
    epochs: int = 10,
    batch_size: int = 128,
    seeds: Sequence[int] = (0,),
    validation_size: int = 0,
    tune: Tuning | None = None,
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
    """Train a model with several optimizers, and compare the results.

    Runs are stored as those of ``nysact train`` are, below ``runs/name``: one that is finished is
    not run again, and the output says so; one that was stopped resumes.

    Args:
        model: Makes the untrained model, with random weights of the global stream.
        train_set: Gives an input and a target for each index, and has a length. Its transforms
            may draw from the global random streams.
        test_set: Likewise.
        optimizers: Names of ``nysact.experiments.baselines``; or names with settings in place of
            the defaults, such as ``{"sgd": {"lr": 0.05}, "nysact": {"rank": 20}}``; or your own
            labels, each with a name and settings or with a function that makes an optimizer for a
            model, such as ``{"rank 10": ("nysact", {"rank": 10}), "mine": lambda model:
            Lion(model.parameters(), lr=1e-4)}``.
        epochs: Passes over the training set.
        batch_size: Samples a step.
        seeds: One training of each optimizer for each seed.
        validation_size: Samples of the training set that are held out, always the same ones, and
            evaluated beside the test set.
        tune: Tunes the learning rate of each optimizer on these samples before the seeds are
            trained, such as ``Tuning()`` for the protocol of the suite, or ``Tuning(factor=2.0,
            rates=5, extensions=0, refinement=None)`` for a grid around the given rate. Choose
            ``seeds`` other than its ``seed``, so that the choice has not seen them.
        loss: Maps the model's output and the targets to the mean loss.
        schedule: Settings of :class:`~nysact.experiments.config.Schedule`, such as
            ``{"name": "constant"}`` or ``{"warmup_epochs": 1}``; by default the learning rate falls
            to 0 along half a cosine, step by step.
        evaluation_interval: Steps between evaluations, ``None`` for one after each epoch.
        precision: Of the arithmetic.
        name: Identifies the comparison. All settings, the optimizers' options, the class of
            the model with its number of parameters, the name of the loss and the sizes of the data
            sets tell runs apart. Other edits to the code of the model or the loss, or to the data,
            do not: give a new name, or delete the folder of the runs.
        runs: Folder of all runs.
        trackers: Further places that follow the runs: ``"tensorboard"``, ``"wandb"``,
            ``"trackio"``.
        workers: Processes that read samples, 0 for none but this one.
        threads: Threads on a CPU, ``None`` for torch's default.
        cpu: Whether to train on the CPU where there is an accelerator.

    Returns:
        The comparison; ``print`` it to see a table, or take its ``rows()`` or ``runs``.
    """
    size, test_size = size_of(train_set, "train_set"), size_of(test_set, "test_set")
    example = made_model(model)
    check_target(loss, train_set[0][1])
    if tune is not None:
        check_held_out(size, validation_size)
    check_writable(Path(runs), "runs")
    common = {
        "recipe": name,
        "column": name,
        "model": {"name": OWN, "options": facts_of(example)},
        "data": {
            "name": OWN,
            "train_size": size,
            "test_size": test_size,
            "validation_size": validation_size,
            "loss": getattr(loss, "__qualname__", repr(loss)),
            "workers": workers,
        },
        "schedule": {"every": "step", **(schedule or {})},
        "batch_size": batch_size,
        "epochs": epochs,
        "evaluation_interval": evaluation_interval,
        "precision": precision,
        "threads": threads,
    }
    kept, held_out = train_set, None
    if validation_size:
        parts = held_out_of(size, validation_size)
        kept, held_out = (Subset(train_set, indices.tolist()) for indices in parts)

    def load(seed: int, device: torch.device, share: Share) -> Problem:
        def batches(samples: Dataset[Any], number: int) -> StandardBatches:
            return StandardBatches(samples, number, EVALUATION_BATCH, device, share, workers)

        others = batches(held_out, validation_size) if held_out else None
        number = size - validation_size
        loader = StandardLoader(kept, number, batch_size, seed, device, share, workers)
        return Problem(loader, batches(test_set, test_size), loss, others)

    display, root = display_for(Console()), Path(runs)
    places: Any = {"root": root, "display": display, "trackers": trackers, "cpu": cpu}

    def train(candidate: Candidate, config: Config) -> Path:
        parts: Any = {"build": model, "load": partial(load, config.seed)}
        return run(config, **places, **parts, make_optimizer=candidate.maker(config))

    paths = []
    for candidate in candidates(optimizers, example):
        optimizer = {"name": candidate.name, "options": candidate.options}
        base = Config.checked({**common, "row": candidate.label, "optimizer": optimizer})
        if tune is None:
            configs = [base.model_copy(update={"seed": seed}) for seed in seeds]
            paths += [train(candidate, config) for config in configs]
            continue
        cell = Cell(base, tune, seeds, root)
        while missing := cell.plan()[1]:
            for config in missing:
                train(candidate, config)
        paths += [folder_of(config, root).path for config in cell.judged()]
    return Comparison([load_run(path) for path in paths])
