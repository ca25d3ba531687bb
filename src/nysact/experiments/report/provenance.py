"""Where results come from: settings, environments and failures of runs."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from nysact.experiments.config.assignments import dotted
from nysact.experiments.formatting import describe_settings, number
from nysact.experiments.recipes import Recipe
from nysact.experiments.recipes.recipe_file import check_names
from nysact.experiments.report.config_diff import options_of
from nysact.experiments.report.results import Results
from nysact.experiments.report.tables import Cell, Table, in_words, text_table
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
    settings = {row: optimizers[row] for row in results.rows}
    return [
        text_table("Optimizers", "optimizer", {"settings": settings}),
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
    logs = failed["failure"].str.findall(r".*\S.*").str[-LAST_LINES:].str.join("\n")
    return list(zip(map(run_title, failed["stored"]), logs, strict=True))


def unfinished(results: Results) -> list[str]:
    """List the runs that neither finished nor failed."""
    return [run_title(run) for run in results.runs["stored"][results.runs["state"] == "unfinished"]]


def run_title(run: StoredRun) -> str:
    """Name a run in words."""
    config = run.config
    parts = [config["row"], config["column"], in_words(config["sweep"]), f"seed {config['seed']}"]
    return ", ".join(part for part in parts if part)


NOTE = "In square brackets: the paper's value; cells that differ from it say so."
# The paper's symbols, which leave room for the values.
SYMBOLS = {
    **{"stat_decay": "β₂", "damping": "ρ", "rank": "r"},
    **{"cov_interval": "τ_cov", "inv_interval": "τ_inv"},
}


def settings_table(recipe: Recipe | None) -> Table:
    """Show settings of each optimizer (kind ``settings``) or of the training of each column."""
    assert recipe is not None  # only recipes have this kind
    names, columns = recipe.report.names, recipe.columns
    places = list(product(recipe.rows, columns))
    settings = {at: dotted(recipe.config(*at, {}, 0).model_dump()) for at in places}
    known = dict.fromkeys(name for values in settings.values() for name in values)
    check_names(f"{recipe.name}: report.names: there is no setting", names, known)
    of_optimizers = recipe.report.kind == "settings"
    row_names, headings = (recipe.rows, names) if of_optimizers else (names, columns)
    cells = {}
    for heading in headings:
        for row in row_names:
            name = heading if of_optimizers else row
            places = [(row, c) for c in columns] if of_optimizers else [(recipe.rows[0], heading)]
            text = joined([settings[place].get(name) for place in places])
            paper = recipe.paper.get(row, {}).get(heading, "")
            note = "differs" if paper not in ("", text) else ""
            cells[row, heading] = Cell(text, note=note, paper=paper)
    frame = pd.Series(cells).unstack().reindex(index=row_names, columns=headings)
    frame = frame.rename(columns=symbol) if of_optimizers else frame.rename(index=symbol)
    frame = frame.rename_axis("optimizer" if of_optimizers else "setting")
    two = of_optimizers and len(columns) > 1
    values = [f"Two values in a cell: of {'; '.join(columns)}."] if two else []
    return Table(recipe.title, frame, [NOTE, *values])


def symbol(name: str) -> str:
    """Name a setting as the paper's table does, or by its own name."""
    last = name.removesuffix(".name").rpartition(".")[2]
    return SYMBOLS.get(last, last.replace("_", " "))


def joined(values: Sequence[Any]) -> str:
    """Write the values of a setting, one for each column where they differ; a dash for none."""
    texts = ["–" if value is None else number(value) for value in values]
    return " / ".join(texts) if len(set(texts)) > 1 else texts[0]
