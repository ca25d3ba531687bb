"""Settings that tell stored runs apart: copies, changed recipes, several versions of one run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pandas as pd

from nysact.experiments.baselines.registry import find
from nysact.experiments.config import Config
from nysact.experiments.config.assignments import dotted
from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes import Recipe
from nysact.experiments.run.store import StoredRun

Settings = Mapping[str, Any]
# Labels of a run, and settings that change no result: the path of the data, and how it is read.
IRRELEVANT = ("recipe", "row", "column", "sweep", "seed", "data.folder", "data.workers")
OF_OPTIMIZER = "optimizer."


def completed(config: Settings) -> dict[str, Any]:
    """Add the defaults of settings that an earlier version did not store, where it is valid."""
    with suppress(ExperimentError):
        return Config.checked(config).model_dump()
    return dict(config)


def options_of(config: Settings) -> Settings:
    """Give all options of a run's optimizer, with the defaults if it is still known."""
    optimizer = config["optimizer"]
    with suppress(ExperimentError):
        return {**find(optimizer["name"]).defaults, **optimizer["options"]}
    return dict(optimizer["options"])


def settings_of(config: Settings) -> Settings:
    """Flatten the settings on which a result depends, the optimizer's defaults included."""
    settings = dotted(
        {**config, "optimizer": {**config["optimizer"], "options": options_of(config)}}
    )
    # Text has no name: its folder identifies it.
    kept = ("data.folder",) if config["data"]["name"] == "text" else ()
    return {name: v for name, v in settings.items() if name in kept or name not in IRRELEVANT}


def without_copies(runs: Iterable[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Keep the furthest copy of each run, and warn of copies with different results."""
    alike: dict[str, list[StoredRun]] = {}
    for run in runs:
        labels = [run.config[name] for name in ("row", "column", "sweep", "seed")]
        key = json.dumps([labels, settings_of(run.config)], sort_keys=True)
        alike.setdefault(key, []).append(run)
    best, warnings = [], []
    for same in alike.values():
        best.append(max(same, key=lambda run: (run.result is not None, len(run.metrics))))
        others = [str(copy.path) for copy in same if not is_part(copy, best[-1])]
        if others:
            warnings.append(
                f"{best[-1].path} and {', '.join(others)} hold the same run with different "
                "results; the first is shown: leave out the folder that is not meant."
            )
    return best, warnings


def is_part(run: StoredRun, whole: StoredRun) -> bool:
    """Whether a copy agrees with another, as far as it got."""
    same_end = run.result is None or run.result == whole.result
    return same_end and run.metrics == whole.metrics[: len(run.metrics)]


def labelled(runs: Sequence[StoredRun], recipe: Recipe | None) -> list[StoredRun]:
    """Name the settings that differ: the optimizer's in the row, all others in the column."""
    meant = [recipe_settings(recipe, run) for run in runs]
    pairs = list(zip(runs, meant, strict=True))
    known = [with_diff(r, differing([settings_of(r.config), m])) for r, m in pairs if m]
    return known + labelled_by_each_other([run for run, m in pairs if m is None])


def recipe_settings(recipe: Recipe | None, run: StoredRun) -> Settings | None:
    """Flatten the recipe's settings for a run's row and column; ``None`` if it has none there."""
    row, column, sweep = (run.config[name] for name in ("row", "column", "sweep"))
    if recipe is None or row not in recipe.rows or column not in recipe.columns:
        return None
    with suppress(ExperimentError):
        return settings_of(recipe.config(row, column, sweep, run.config["seed"]).model_dump())
    return None


def labelled_by_each_other(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Compare all runs of a column, and the optimizers of each row and sweep in it."""
    labels = ["column", "row", "sweep"]
    frame = pd.DataFrame([{k: str(r.config[k]) for k in labels} for r in runs], columns=labels)
    names: list[list[str]] = [[] for _ in runs]
    for by, optimizer in ((["column"], False), (labels, True)):
        for places in frame.groupby(by, sort=False).indices.values():
            swept = {name for i in places for name in runs[i].config["sweep"]}
            found = differing([settings_of(runs[i].config) for i in places])
            kept = [n for n in found if n.startswith(OF_OPTIMIZER) == optimizer and n not in swept]
            for i in places:
                names[i] += kept
    return [with_diff(run, mine) for run, mine in zip(runs, names, strict=True)]


def differing(many: Sequence[Settings]) -> list[str]:
    """List the names of the settings that are not the same in all."""
    frame = pd.DataFrame(list(many), dtype=object)
    texts = frame.where(frame.notna(), None).map(repr)
    return [str(name) for name in texts if texts[name].nunique() > 1]


def with_diff(run: StoredRun, names: Sequence[str]) -> StoredRun:
    """Append settings to a run's labels, such as ``SGD (lr=0.3)`` and ``LeNet-5 (epochs=2)``."""
    settings, labels = settings_of(run.config), {}
    for label, optimizer in (("row", True), ("column", False)):
        mine = [name for name in names if name.startswith(OF_OPTIMIZER) == optimizer]
        texts = [f"{n.removeprefix('optimizer.options.')}={settings.get(n)}" for n in mine]
        labels[label] = run.config[label] + (f" ({', '.join(texts)})" if texts else "")
    return replace(run, config={**run.config, **labels})
