"""The settings, environments and failures of the runs in a report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nysact.experiments.baselines.registry import in_words as settings_in_words
from nysact.experiments.report.config_diff import flat, options_of
from nysact.experiments.report.results import Results, in_words
from nysact.experiments.report.table import Table, text_table
from nysact.experiments.run.store import StoredRun

# Settings that tables and figures show already, or that are shown for each optimizer.
SHOWN = ("recipe", "row", "column", "sweep", "optimizer")
# Lines of a failure that a report quotes.
LAST_LINES = 4
# Up to so many runs are named one by one.
FEW = 5


def details(results: Results) -> list[Table]:
    """List the optimizers' settings, all other settings, and the environments."""
    optimizers: dict[str, dict[str, None]] = {}
    for run in results.stored:
        optimizers.setdefault(run.config["row"], {})[optimizer_in_words(run.config)] = None
    texts = {row: "; ".join(optimizers[row]) for row in results.rows}
    training = varying(flat(run.config) for run in results.stored)
    training = {k: v for k, v in training.items() if k.partition(".")[0] not in SHOWN}
    places = varying(flat(run.environment) for run in results.stored)
    return [
        text_table("Optimizers", "optimizer", {"settings": texts}),
        text_table("Training", "setting", {"values": training}),
        text_table("Environment", "", {"values": places}),
    ]


def optimizer_in_words(config: Mapping[str, Any]) -> str:
    """Write an optimizer's settings, without those that a sweep varies."""
    varied = {name.removeprefix("optimizer.options.") for name in config["sweep"]}
    options = {name: value for name, value in options_of(config).items() if name not in varied}
    return f"{config['optimizer']['name']}: {settings_in_words(options)}"


def varying(many: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Join the different values of each name."""
    values: dict[str, dict[str, None]] = {}
    for one in many:
        for name, value in one.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(found) for name, found in values.items()}


def mixed_environments(results: Results) -> list[str]:
    """Say which runs were made elsewhere, if not all have the same device and version of torch."""
    places: dict[str, list[StoredRun]] = {}
    for run in results.stored:
        for made in (run.environment, *run.environment.get("resumed", [])):
            version = made.get("packages", {}).get("torch")
            place = f"{made.get('device_name', 'an unknown device')} with torch {version}"
            places.setdefault(place, []).append(run)
    if len(places) < 2:
        return []
    usual = max(places, key=lambda place: len(places[place]))
    others = [f"{few(map(run_title, places[at]))} on {at}" for at in places if at != usual]
    return [f"Not all runs are of one environment: {'; '.join(others)}; the others on {usual}."]


def few(titles: Iterable[str]) -> str:
    """Name runs, or count them where they are many."""
    names = list(dict.fromkeys(titles))
    return "; ".join(names) if len(names) <= FEW else f"{len(names)} runs"


def failures(results: Results) -> list[tuple[str, str]]:
    """List the failed runs, each with the last lines of its log."""
    failed = results.runs[results.runs["state"] == "failed"]
    return [
        (run_title(run), last_lines(reason))
        for run, reason in zip(failed["stored"], failed["failure"], strict=True)
    ]


def unfinished(results: Results) -> list[str]:
    """List the runs that neither finished nor failed."""
    return [run_title(run) for run in results.runs["stored"][results.runs["state"] == "unfinished"]]


def run_title(run: StoredRun) -> str:
    """Name a run in words."""
    config = run.config
    parts = [config["row"], config["column"], in_words(config["sweep"]), f"seed {config['seed']}"]
    return ", ".join(part for part in parts if part)


def last_lines(text: str, count: int = LAST_LINES) -> str:
    """Keep the last lines that are not blank."""
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
