"""Where the runs of a report come from: their settings, their environments, their failures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nysact.experiments.baselines.registry import find
from nysact.experiments.baselines.registry import in_words as settings_in_words
from nysact.experiments.report.results import Results, failure_of
from nysact.experiments.report.table import Cell, Table
from nysact.experiments.report.tables import in_words
from nysact.experiments.report.told_apart import flat
from nysact.experiments.run.store import StoredRun

# What tables and figures show already, or what is shown for each optimizer.
SHOWN = ("recipe", "row", "column", "sweep", "optimizer")
# Lines of a failure that a report quotes.
LAST_LINES = 4
# As many runs are named one by one.
FEW = 5


def optimizer_settings(results: Results) -> Table:
    """List each row's optimizer with all its settings.

    Args:
        results: The runs.

    Returns:
        A table; what a sweep varies is left to its own tables.
    """
    rows = []
    for row in results.rows:
        configs = [run.config for run in results.runs if run.config["row"] == row]
        found = dict.fromkeys(optimizer_in_words(config) for config in configs)
        rows.append((row, (Cell("; ".join(found)),)))
    return Table("Optimizers", ["optimizer", "settings"], rows)


def optimizer_in_words(config: Mapping[str, Any]) -> str:
    """Write an optimizer's settings out, those that a sweep varies excepted."""
    optimizer = config["optimizer"]
    options = {**find(optimizer["name"]).defaults, **optimizer["options"]}
    for name in config["sweep"]:
        options.pop(name.removeprefix("optimizer.options."), None)
    return f"{optimizer['name']}: {settings_in_words(options)}"


def training_settings(results: Results) -> Table:
    """List all other settings with the values that occur.

    Args:
        results: The runs.

    Returns:
        A table.
    """
    values = varying(flat(run.config) for run in results.runs)
    rows = [(k, (Cell(v),)) for k, v in values.items() if k.partition(".")[0] not in SHOWN]
    return Table("Training", ["setting", "values"], rows)


def environments(results: Results) -> Table:
    """List where the runs were made: versions, device and the like, with the values that occur.

    Args:
        results: The runs.

    Returns:
        A table.
    """
    found = varying(flat(run.environment) for run in results.runs)
    rows = [(name, (Cell(value),)) for name, value in found.items()]
    return Table("Environment", ["", "values"], rows)


def mixed_environments(results: Results) -> list[str]:
    """Say which runs were made where, if that is not the same device and version for all.

    Args:
        results: The runs.

    Returns:
        A sentence for the notes of tables, or none.
    """
    places: dict[str, list[StoredRun]] = {}
    for run in results.runs:
        for made in (run.environment, *run.environment.get("resumed", [])):
            version = made.get("packages", {}).get("torch")
            place = f"{made.get('device_name', 'an unknown device')} with torch {version}"
            places.setdefault(place, []).append(run)
    if len(places) < 2:
        return []
    usual = max(places, key=lambda place: len(places[place]))
    others = [f"{few_in_words(places[place])} on {place}" for place in places if place != usual]
    return [f"Not all runs are of one environment: {'; '.join(others)}; the others on {usual}."]


def few_in_words(runs: Sequence[StoredRun]) -> str:
    """Name runs, or count them where they are many."""
    names = list(dict.fromkeys(map(run_title, runs)))
    return "; ".join(names) if len(names) <= FEW else f"{len(names)} runs"


def varying(many: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Join the different values of each name."""
    values: dict[str, dict[str, None]] = {}
    for one in many:
        for name, value in one.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(found) for name, found in values.items()}


def failures(results: Results) -> list[tuple[str, str]]:
    """List the runs that failed, each with the last lines of its log.

    Args:
        results: The runs.

    Returns:
        What was run, and why it failed.
    """
    found = ((run, failure_of(run)) for run in results.runs)
    return [(run_title(run), last_lines(reason)) for run, reason in found if reason is not None]


def unfinished(results: Results) -> list[str]:
    """List the runs that neither finished nor failed."""
    return [run_title(run) for run in results.unfinished() if failure_of(run) is None]


def run_title(run: StoredRun) -> str:
    """Name a run in words."""
    config = run.config
    varied = in_words(tuple(config["sweep"].items()))
    parts = [config["row"], config["column"], varied, f"seed {config['seed']}"]
    return ", ".join(part for part in parts if part)


def last_lines(text: str, count: int = LAST_LINES) -> str:
    """Keep the last lines that are not blank."""
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
