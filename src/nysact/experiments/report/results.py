"""What stored runs say: grouped by row, column and setting, and summed up over the seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from nysact.experiments.metrics import Metric
from nysact.experiments.report.told_apart import (
    Setting,
    completed,
    setting_of,
    told_apart,
    without_copies,
)
from nysact.experiments.run.failure import failure_of, succeeded
from nysact.experiments.run.store import StoredRun
from nysact.experiments.spread import mean_and_spread

if TYPE_CHECKING:
    from nysact.experiments.recipes import Recipe


@dataclass(frozen=True)
class Sample:
    """One number for each seed that gave one.

    Args:
        values: The numbers, all finite.
        expected: How many there should be.
        failed: How many runs failed.
    """

    values: Sequence[float]
    expected: int
    failed: int = 0

    @property
    def complete(self) -> bool:
        """Whether every seed gave a number."""
        return len(self.values) >= self.expected

    @property
    def mean(self) -> float:
        """The mean; there must be a value."""
        return mean_and_spread(self.values)[0]

    @property
    def deviation(self) -> float:
        """The sample standard deviation, 0 for a single value."""
        return mean_and_spread(self.values)[1]

    def text(self, digits: int) -> str:
        """Write mean and deviation, the mean alone of a single value."""
        if not self.values:
            return "failed" if self.failed else "–"
        mean = f"{self.mean:.{digits}f}"
        return mean if len(self.values) == 1 else f"{mean} ± {self.deviation:.{digits}f}"

    @property
    def note(self) -> str:
        """What is missing, such as ``n=2/3``; nothing if nothing is."""
        return "" if self.complete else f"n={len(self.values)}/{self.expected}"


@dataclass(frozen=True)
class Group:
    """The runs that differ in their seed alone.

    Args:
        row: The optimizer's label.
        column: What is trained.
        setting: What a figure varies, empty in a table.
        seeds: How many runs there should be.
        runs: Those that there are, in the order of their seeds.
    """

    row: str
    column: str
    setting: Setting
    seeds: int
    runs: Sequence[StoredRun] = field(default_factory=tuple)

    def sample(self, read: Callable[[StoredRun], float | None]) -> Sample:
        """Read a number off each finished run; what is missing or not finite is left out."""
        found = [read(run) for run in self.runs if succeeded(run)]
        values = [value for value in found if value is not None]
        return Sample(values, self.seeds, sum(failure_of(run) is not None for run in self.runs))


@dataclass(frozen=True)
class Results:
    """The runs of one recipe.

    Args:
        name: The recipe.
        runs: Its stored runs.
        rows: The optimizers, in the order in which they are shown.
        columns: What is trained, likewise.
        seeds: How many seeds each combination should have.
        warnings: What the reader must know of the runs, a sentence each.
    """

    name: str
    runs: Sequence[StoredRun]
    rows: Sequence[str]
    columns: Sequence[str]
    seeds: int
    warnings: Sequence[str] = ()

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of runs, in the order of rows and columns."""
        found: dict[tuple[str, str, Setting], list[StoredRun]] = {}
        for run in self.runs:
            key = (run.config["row"], run.config["column"], setting_of(run))
            found.setdefault(key, []).append(run)
        for runs in found.values():
            runs.sort(key=lambda run: int(run.config["seed"]))
        keys = sorted(found, key=lambda k: (self.rows.index(k[0]), self.columns.index(k[1])))
        return [Group(*key, self.expected(key[1]), found[key]) for key in keys]

    def expected(self, column: str) -> int:
        """Count the seeds that each group of a column should have: more if some have more."""
        found = {run.config["seed"] for run in self.runs if run.config["column"] == column}
        return max(self.seeds, len(found))

    def group(self, row: str, column: str, setting: Setting = ()) -> Group:
        """Find the runs of one cell; there may be none."""
        for group in self.groups:
            if (group.row, group.column, group.setting) == (row, column, setting):
                return group
        return Group(row, column, setting, self.expected(column))

    def samples(self, column: str, read: Callable[[StoredRun], float | None]) -> list[Sample]:
        """Read a number off each finished run of a column, without those of a sweep.

        Args:
            column: The column.
            read: What is read.

        Returns:
            One sample a row, in their order.
        """
        return [self.group(row, column).sample(read) for row in self.rows]

    def unfinished(self) -> list[StoredRun]:
        """List the runs that have no result."""
        return [run for run in self.runs if run.result is None]


def collect(
    name: str,
    runs: Iterable[StoredRun],
    recipe: "Recipe | None" = None,
    seeds: int | None = None,
) -> Results:
    """Take the runs of one recipe together.

    Args:
        name: What the results are called.
        runs: The stored runs.
        recipe: The recipe, in whose order rows and columns are shown, others following; ``None``
            if it is not known.
        seeds: How many seeds are expected of each group, ``None`` for as many as the recipe has,
            or if that is not known, as there are in all.

    Returns:
        The results.
    """
    found = [replace(run, config=completed(run.config)) for run in runs]
    kept, warnings = without_copies(sorted(found, key=lambda run: str(run.path)))
    shown = told_apart(kept, recipe)
    in_all = len({run.config["seed"] for run in shown})
    return Results(
        name,
        shown,
        in_order([run.config["row"] for run in shown], recipe.rows if recipe else ()),
        in_order([run.config["column"] for run in shown], recipe.columns if recipe else ()),
        seeds or (len(recipe.seeds) if recipe else in_all),
        warnings,
    )


def in_order(found: Sequence[str], order: Sequence[str]) -> list[str]:
    """List what was found once each, what occurs in ``order`` first and in that order."""
    known = [name for name in dict.fromkeys(order) if name in found]
    return list(dict.fromkeys([*known, *found]))


def final(run: StoredRun, metric: Metric) -> float | None:
    """Read a metric's last value, ``None`` if there is none or it is not finite."""
    values = [record[metric.name] for record in run.metrics if metric.name in record]
    return values[-1] if values else None


def best(run: StoredRun, metric: Metric) -> float | None:
    """Read a metric's best value; values that are not finite do not count."""
    values = [record[metric.name] for record in run.metrics if metric.name in record]
    finite = [value for value in values if value is not None]
    return (max if metric.higher else min)(finite, default=None)


def progress_of(run: StoredRun) -> str:
    """Tell what a run's progress is counted in: ``"epoch"``, or ``"step"`` if it has so many."""
    return "epoch" if run.config.get("steps") is None else "step"


def progress_name(results: Results, column: str) -> str:
    """Tell what the progress of a column's runs is counted in.

    Args:
        results: The runs.
        column: The column.

    Returns:
        ``"epoch"`` or ``"step"``.
    """
    return next(progress_of(run) for run in results.runs if run.config["column"] == column)
