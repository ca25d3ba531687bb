"""What tells stored runs apart: copies of a run, and settings that are not the recipe's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.store import StoredRun

if TYPE_CHECKING:
    from nysact.experiments.recipes import Recipe

# Setting of a sweep, such as (("optimizer.options.lr", 0.1),).
Setting = tuple[tuple[str, Any], ...]
# Where data lies, and how it is read, changes no result.
PLACES = ("data.folder", "data.workers")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested values with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        found.update(flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value})
    return found


def setting_of(run: StoredRun) -> Setting:
    """Give what a run's sweep varies, sorted by name, such as ``(("data.batch_size", 128),)``."""
    return tuple(sorted((name, hashable(v)) for name, v in run.config["sweep"].items()))


def hashable(value: Any) -> Any:
    """Make a tuple of a list, at every depth."""
    return tuple(map(hashable, value)) if isinstance(value, list) else value


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add settings that a run of an earlier version did not write down, with their defaults.

    Args:
        config: The configuration as it was stored.

    Returns:
        The whole configuration; one with what no longer exists is left as it is.
    """
    with suppress(ExperimentError):
        return Config.checked(config).model_dump()
    return dict(config)


def what_counts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings on which a result depends, by their dotted names."""
    # Text has no name of its own: its folder says what it is.
    left_out = () if config["data"]["name"] == "text" else PLACES
    return {name: value for name, value in flat(config).items() if name not in left_out}


def without_copies(runs: Iterable[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Keep each run once, where several folders hold it.

    Args:
        runs: The runs.

    Returns:
        Of each run the copy that got furthest, and a sentence for each whose copies differ.
    """
    alike: dict[str, list[StoredRun]] = {}
    for run in runs:
        key = json.dumps(what_counts(run.config), sort_keys=True)
        alike.setdefault(key, []).append(run)
    kept, warnings = [], []
    for copies in alike.values():
        best = max(copies, key=lambda run: (run.result is not None, len(run.metrics)))
        kept.append(best)
        others = [str(run.path) for run in copies if not is_part(run, best)]
        if others:
            warnings.append(
                f"{best.path} and {', '.join(others)} hold the same run with other results: the "
                "first is shown; leave out the folder that is not meant."
            )
    return kept, warnings


def is_part(run: StoredRun, whole: StoredRun) -> bool:
    """Tell whether a copy of a run says what another says, as far as it got."""
    same_end = run.result is None or run.result == whole.result
    return same_end and run.metrics == whole.metrics[: len(run.metrics)]


def told_apart(runs: Sequence[StoredRun], recipe: "Recipe | None" = None) -> list[StoredRun]:
    """Give runs columns of their own where more than the seed tells them from what is meant.

    Args:
        runs: Runs of one recipe, some of them perhaps with other settings than the recipe's.
        recipe: The recipe, ``None`` if it is not known.

    Returns:
        The runs; the column of one that differs from the recipe's run in this place says in what,
        such as ``ResNet-20 (epochs=2)``. Where that is not known, runs of one place that differ
        from each other say so.
    """
    found = []
    alike: dict[tuple[str, str, Setting], list[StoredRun]] = {}
    for run in runs:
        meant = meant_by(recipe, run)
        if meant is None:
            key = (run.config["row"], run.config["column"], setting_of(run))
            alike.setdefault(key, []).append(run)
        else:
            found.append(labelled(run, differing([run.config, meant])))
    for group in alike.values():
        names = differing([run.config for run in group])
        found += [labelled(run, names) for run in group]
    return found


def meant_by(recipe: "Recipe | None", run: StoredRun) -> dict[str, Any] | None:
    """Give the recipe's configuration in the place of a run, ``None`` if it has none there."""
    config = run.config
    if recipe is None or config["row"] not in recipe.rows or config["column"] not in recipe.columns:
        return None
    with suppress(ExperimentError):
        meant = recipe.config(config["row"], config["column"], config["sweep"], config["seed"])
        return meant.model_dump()
    return None


def differing(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the dotted names of the settings, but for the seed, that are not the same in all."""
    settings = [what_counts(config) for config in configs]
    names = dict.fromkeys(name for values in settings for name in values if name != "seed")
    return [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]


def labelled(run: StoredRun, names: Sequence[str]) -> StoredRun:
    """Add settings to the column of a run."""
    if not names:
        return run
    values = flat(run.config)
    label = ", ".join(f"{name}={values.get(name)}" for name in names)
    return replace(run, config={**run.config, "column": f"{run.config['column']} ({label})"})
