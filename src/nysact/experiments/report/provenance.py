"""The settings, environments and failures of the runs in a report."""

from collections.abc import Iterable, Mapping
from typing import Any

from nysact.experiments.assignments import dotted
from nysact.experiments.formatting import describe_settings
from nysact.experiments.report.config_diff import options_of
from nysact.experiments.report.results import Results
from nysact.experiments.report.table import Table, text_table
from nysact.experiments.report.tables import in_words
from nysact.experiments.run.store import StoredRun

# Settings that tables and figures show already, or that are shown for each optimizer.
SHOWN = ("recipe", "row", "column", "sweep", "optimizer")
# Lines of a failure that a report quotes.
LAST_LINES = 4
# Up to so many runs are named one by one.
FEW = 5


def details(results: Results) -> list[Table]:
    """List the optimizers' settings, all other settings, and the environments."""
    runs = list(results.runs["stored"])
    optimizers = varying({run.config["row"]: optimizer_in_words(run.config)} for run in runs)
    training = varying(
        {k: v for k, v in dotted(run.config).items() if k.partition(".")[0] not in SHOWN}
        for run in runs
    )
    places = varying(dotted(run.environment) for run in runs)
    ordered = {row: optimizers[row] for row in results.rows}
    return [
        text_table("Optimizers", "optimizer", {"settings": ordered}),
        text_table("Training", "setting", {"values": training}),
        text_table("Environment", "", {"values": places}),
    ]


def optimizer_in_words(config: Mapping[str, Any]) -> str:
    """Write an optimizer's settings, without those that a sweep varies."""
    varied = {name.removeprefix("optimizer.options.") for name in config["sweep"]}
    options = {name: value for name, value in options_of(config).items() if name not in varied}
    return f"{config['optimizer']['name']}: {describe_settings(options)}"


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
    for run in results.runs["stored"]:
        for made in (run.environment, *run.environment.get("resumed", [])):
            version = made.get("packages", {}).get("torch")
            place = f"{made.get('device_name', 'an unknown device')} with torch {version}"
            places.setdefault(place, []).append(run)
    if len(places) < 2:
        return []
    usual = max(places, key=lambda place: len(places[place]))
    titles = {place: list(dict.fromkeys(map(run_title, found))) for place, found in places.items()}
    named = {at: "; ".join(t) if len(t) <= FEW else f"{len(t)} runs" for at, t in titles.items()}
    others = [f"{text} on {place}" for place, text in named.items() if place != usual]
    return [f"Not all runs are of one environment: {'; '.join(others)}; the others on {usual}."]


def failures(results: Results) -> list[tuple[str, str]]:
    """List the failed runs, each with the last lines of its log."""
    failed = results.runs[results.runs["state"] == "failed"]
    logs = [[line for line in log.splitlines() if line.strip()] for log in failed["failure"]]
    texts = ["\n".join(lines[-LAST_LINES:]) for lines in logs]
    return list(zip(map(run_title, failed["stored"]), texts, strict=True))


def unfinished(results: Results) -> list[str]:
    """List the runs that neither finished nor failed."""
    return [run_title(run) for run in results.runs["stored"][results.runs["state"] == "unfinished"]]


def run_title(run: StoredRun) -> str:
    """Name a run in words."""
    config = run.config
    parts = [config["row"], config["column"], in_words(config["sweep"]), f"seed {config['seed']}"]
    return ", ".join(part for part in parts if part)
