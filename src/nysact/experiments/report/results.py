"""Stored runs as tidy frames, from which every table and figure is made."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from nysact.experiments.config.assignments import dotted
from nysact.experiments.metrics import Metric
from nysact.experiments.recipes import Recipe
from nysact.experiments.report.config_diff import completed, labelled, without_copies
from nysact.experiments.run.store import StoredRun, failure_of

# The measured costs of a run, in its ``timing.json``. The median step would miss the rare steps in
# which a preconditioner is refreshed, hence the mean.
COSTS = ("mean_step_seconds", "peak_memory", "optimizer_state_bytes", "training_seconds")
COLUMNS = [*("row", "column", "setting", "sweep", "seed", "state", "failure", "progress", "device"),
           *COSTS, "stored"]  # fmt: skip
GROUP = ["row", "column", "setting"]
PLACE = ("run", "step", "epoch", "seconds", "metric", "value")


@dataclass(frozen=True)
class Results:
    """The runs of one recipe."""

    name: str
    # One line a run: row, column, setting (the sweep as JSON, "" for none), sweep, seed, expected
    # (how many seeds its group should have), state, failure, progress, device, COSTS, stored.
    runs: pd.DataFrame
    # One line a recorded value: run (the line in runs), step, epoch, seconds, metric, value.
    values: pd.DataFrame
    warnings: Sequence[str] = ()

    @property
    def rows(self) -> list[str]:
        """The optimizers, in the order in which they are shown."""
        return list(self.runs["row"].cat.categories)

    @property
    def columns(self) -> list[str]:
        """What is trained, in the order in which it is shown."""
        return list(self.runs["column"].cat.categories)

    @property
    def plain(self) -> "Results":
        """The runs that are part of no sweep."""
        return self.where(self.runs["setting"] == "")

    def where(self, chosen: pd.Series) -> "Results":
        """Keep some of the runs."""
        runs = self.runs[chosen].copy()
        for label in ("row", "column"):
            runs[label] = runs[label].cat.remove_unused_categories()
        return replace(self, runs=runs, values=self.values[self.values["run"].isin(runs.index)])

    def curves(self, metric: Metric) -> pd.DataFrame:
        """Give the recorded values of a metric beside the labels of their runs."""
        mine = self.values[self.values["metric"] == metric.name]
        labels = [*GROUP, "seed", "state", "progress"]
        return mine.join(self.runs[labels], on="run")

    def measured(self, metric: Metric, at: str = "final") -> pd.Series:
        """Give each run's final or best value."""
        mine = self.values[self.values["metric"] == metric.name]
        if at == "final":
            return mine.drop_duplicates("run", keep="last").set_index("run")["value"]
        return mine.groupby("run")["value"].agg("max" if metric.higher else "min")

    def summary(self, value: pd.Series) -> pd.DataFrame:
        """Sum a number up over the seeds of the runs that did not fail, a line for each group."""
        counted = value.reindex(self.runs.index).where(self.runs["state"] == "finished")
        frame = self.runs.assign(value=counted, failed=self.runs["state"] == "failed")
        found = frame.groupby(GROUP, observed=True).agg(
            mean=("value", "mean"), std=("value", "std"), n=("value", "count"),
            failed=("failed", "sum"), expected=("expected", "max"),
        )  # fmt: skip
        return found.fillna({"std": 0.0}).reset_index()

    def single_sweeps(self) -> dict[tuple[str, str], list[str]]:
        """Give the settings of each column in which one name varies alone, ordered by its value."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for run in self.runs.sort_values(["column", "row"]).itertuples():
            if len(run.sweep) == 1:
                ((name, value),) = run.sweep.items()
                found.setdefault((run.column, name), {})[run.setting] = value
        orders = {key: pd.Series(values, dtype=object) for key, values in found.items()}
        by_value = {"key": lambda values: values.map(numbers_first)}
        return {key: list(values.sort_values(**by_value).index) for key, values in orders.items()}

    @property
    def sweeps(self) -> pd.Series:
        """The sweep of each setting."""
        return self.runs.drop_duplicates("setting").set_index("setting")["sweep"]


def collect(
    name: str, runs: Iterable[StoredRun], recipe: Recipe | None = None, seeds: int | None = None
) -> Results:
    """Gather the runs of one recipe, in its order; ``seeds`` are expected of each group."""
    found = [replace(run, config=completed(run.config)) for run in runs]
    kept, warnings = without_copies(sorted(found, key=lambda run: str(run.path)))
    shown = labelled(kept, recipe)
    frame = pd.DataFrame(map(line, shown), columns=COLUMNS)
    for label in ("row", "column"):
        frame[label] = ordered(frame[label], getattr(recipe, f"{label}s", ()))
    usual = seeds or (len(recipe.seeds) if recipe else frame["seed"].nunique())
    present = frame.groupby("column", observed=True)["seed"].transform("nunique")
    frame = frame.assign(expected=present.clip(lower=usual)).sort_values([*GROUP, "seed"])
    lines = [each for index, run in enumerate(shown) for each in value_lines(index, run)]
    values = pd.DataFrame(lines, columns=list(PLACE)).astype({"value": float, "seconds": float})
    return Results(name, frame, values, warnings)


def ordered(labels: pd.Series, order: Sequence[str]) -> pd.Series:
    """Order labels as given, each followed by those that extend it, and by unknown ones last."""
    known = list(dict.fromkeys(order))

    def place(label: str) -> tuple[int, bool]:
        base = label if label in known else label.partition(" (")[0]
        return known.index(base) if base in known else len(known), label not in known

    kind = pd.CategoricalDtype(sorted(dict.fromkeys(labels), key=place), ordered=True)
    return labels.astype(kind)


def line(run: StoredRun) -> dict[str, Any]:
    """Describe a run in a line of the frame."""
    config, failure = run.config, failure_of(run)
    state = "failed" if failure is not None else "unfinished" if run.result is None else "finished"
    made = (run.environment, *run.environment.get("resumed", []))
    return {
        **{name: config[name] for name in ("row", "column", "sweep", "seed")},
        "setting": json.dumps(config["sweep"], sort_keys=True) if config["sweep"] else "",
        "state": state,
        "failure": failure,
        "progress": "epoch" if config.get("steps") is None else "step",
        "device": ", ".join(dict.fromkeys(str(one.get("device_name")) for one in made)),
        **{cost: (run.timings or {}).get(cost) for cost in COSTS},
        "stored": run,
    }


def value_lines(index: int, run: StoredRun) -> Iterator[dict[str, Any]]:
    """List the recorded values of a run; the norm of a layer is ``covariance_norms.LAYER``."""
    seconds = {record["step"]: record["seconds"] for record in run.timing}
    for record in run.metrics:
        step, epoch = record["step"], record["epoch"]
        place = {"run": index, "step": step, "epoch": epoch, "seconds": seconds.get(step)}
        for name, value in dotted(record).items():
            if name not in PLACE:
                yield {**place, "metric": name, "value": value}


def numbers_first(value: Any) -> tuple[bool, Any]:
    """Order numbers by size, and everything else after them by its text."""
    number = isinstance(value, int | float)
    return not number, value if number else str(value)
