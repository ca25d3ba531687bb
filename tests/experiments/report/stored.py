"""Run folders in the runner's format, filled with numbers that are known."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nysact.experiments.config import Config
from nysact.experiments.devices import PEAK_MEMORY
from nysact.experiments.recipes import Recipe
from nysact.experiments.report.report import sections_of, write_report
from nysact.experiments.report.results import Results, collect
from nysact.experiments.report.tables import Cell, Table
from nysact.experiments.run.store import load_runs

OPTIMIZERS = {"SGD": "sgd", "AdamW": "adamw", "NysAct": "nysact", "FOOF": "foof"}


def write_run(
    root: Path,
    row: str = "SGD",
    seed: int = 0,
    *,
    recipe: str = "made-up",
    column: str = "LeNet-5, 3 epochs",
    sweep: Mapping[str, Any] | None = None,
    accuracies: Sequence[float | None] = (70.0, 80.0, 90.0),
    losses: Sequence[float | None] | None = None,
    step_seconds: float = 0.1,
    finished: bool = True,
    failure: str | None = None,
    memory: int | None = None,
    norms: Sequence[Mapping[str, float]] = (),
    arrays: Mapping[str, np.ndarray] | None = None,
    environment: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write the folder of a run whose epochs have 10 steps; diverged where an accuracy is None."""
    sweep = dict(sweep or {})
    distinct = f"{row} {column} {sweep} {settings} {seed}"
    path = root / recipe / hashlib.sha256(distinct.encode()).hexdigest()[:16]
    path.mkdir(parents=True)
    optimizer = {"name": OPTIMIZERS.get(row, "nysact"), "options": {}, "decay_vectors": True}
    config = {
        **{"recipe": recipe, "row": row, "column": column, "sweep": sweep, "seed": seed},
        **{"model": {"name": "lenet5", "options": {}}, "data": {"name": "fashion-mnist"}},
        **{"optimizer": optimizer, "batch_size": 128, "epochs": 3, "threads": 1, **settings},
    }
    write_json(path / "config.json", config)
    usual = {"python": "3.11.2", "packages": {"torch": "2.15.0"}, "device_name": "a CPU"}
    write_json(path / "environment.json", {**usual, **(environment or {})})
    losses = losses or [2.0 * 0.5**epoch for epoch in range(len(accuracies))]
    metrics, timing = [], []
    for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True)):
        step = 10 * (epoch + 1)
        values = {"train_loss": loss, "test_loss": loss, "test_accuracy": accuracy}
        extra = {"covariance_norms": norms[epoch]} if norms else {}
        metrics.append({"step": step, "epoch": epoch + 1, **values, **extra})
        timing.append({"step": step, "seconds": step * step_seconds})
    for file, lines in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
        (path / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = 10 * len(accuracies)
    if finished:
        seconds = {"training_seconds": steps * step_seconds, "mean_step_seconds": step_seconds}
        peak = {} if memory is None else {PEAK_MEMORY: memory}
        write_json(path / "timing.json", {**seconds, "optimizer_state_bytes": 1000, **peak})
        result = {"steps": steps, "epochs": len(accuracies), "metrics": {}}
        write_json(path / "result.json", {**result, **({"failure": failure} if failure else {})})
    elif failure:
        (path / "failure.txt").write_text(failure)
    if arrays:
        np.savez_compressed(path / "arrays.npz", **arrays)
    return path


def write_config(root: Path, config: Config, **changes: Any) -> Path:
    """Write the folder of a run of a recipe."""
    values = config.model_dump()
    labels = {name: values.pop(name) for name in ("recipe", "column", "sweep")}
    row, seed = values.pop("row"), values.pop("seed")
    return write_run(root, row, seed, **{**labels, **values, **changes})


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def write_table(
    root: Path, seeds: int = 3, columns: Sequence[str] = ("LeNet-5", "ResNet-20")
) -> None:
    """Write runs of four optimizers, of which FOOF is the best and NysAct the second best."""
    for level, row in enumerate(OPTIMIZERS):
        for column in columns:
            for seed in range(seeds):
                last = 80.0 + 2 * level + 0.1 * seed
                curve = [last * (1 - math.exp(-epoch - 1)) for epoch in range(9)] + [last]
                write_run(
                    root, row, seed, column=column, accuracies=curve,
                    step_seconds=0.1 * (1 + level), memory=1000 * (1 + level),
                )  # fmt: skip


def results_of(root: Path, recipe: Recipe | None = None, seeds: int | None = None) -> Results:
    """Collect all runs below a folder."""
    return collect("made-up", load_runs(root), recipe, seeds)


def cells(table: Table, row: str) -> dict[str, Cell]:
    """Give the cells of a row by their headings."""
    return dict(zip(table.frame.columns, table.frame.loc[row], strict=True))


def page_of(root: Path, output: Path) -> str:
    """Write the report of all runs below a folder, and give its page."""
    write_report(sections_of(load_runs(root)), output, Console(file=StringIO()))
    return (output / "report.html").read_text()
