"""What stored runs say: grouped by row, column and setting, and summed up over the seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nysact.experiments.report.metrics import Metric
from nysact.experiments.run.store import StoredRun
from nysact.experiments.spread import mean_and_spread

# Where the folder of a run says that, and why, the run failed.
FAILURE = "failure.txt"
# Setting of a sweep, such as (("optimizer.options.lr", 0.1),).
Setting = tuple[tuple[str, Any], ...]


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
    """

    name: str
    runs: Sequence[StoredRun]
    rows: Sequence[str]
    columns: Sequence[str]
    seeds: int

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
        return [Group(*key, self.seeds, found[key]) for key in keys]

    def group(self, row: str, column: str, setting: Setting = ()) -> Group:
        """Find the runs of one cell; there may be none."""
        for group in self.groups:
            if (group.row, group.column, group.setting) == (row, column, setting):
                return group
        return Group(row, column, setting, self.seeds)

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
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Results:
    """Take the runs of one recipe together.

    Args:
        name: The recipe.
        runs: Its stored runs.
        rows: Optimizers in the order in which they are to be shown; others follow.
        columns: What is trained, likewise.

    Returns:
        The results; as many seeds are expected of each group as there are in all.
    """
    runs = told_apart(sorted(runs, key=lambda run: str(run.path)))
    return Results(
        name,
        runs,
        in_order([run.config["row"] for run in runs], rows),
        in_order([run.config["column"] for run in runs], columns),
        len({run.config["seed"] for run in runs}),
    )


def in_order(found: Sequence[str], order: Sequence[str]) -> list[str]:
    """List what was found once each, what occurs in ``order`` first and in that order."""
    known = [name for name in dict.fromkeys(order) if name in found]
    return list(dict.fromkeys([*known, *found]))


def told_apart(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Give runs columns of their own where more than the seed tells them from others.

    Args:
        runs: Runs of one recipe, some of them perhaps with other settings than the recipe's.

    Returns:
        The runs; where those of one row, column and setting differ, the column says in what, such
        as ``ResNet-20 (epochs=2)``.
    """
    alike: dict[tuple[str, str, Setting], list[StoredRun]] = {}
    for run in runs:
        key = (run.config["row"], run.config["column"], setting_of(run))
        alike.setdefault(key, []).append(run)
    return [run for group in alike.values() for run in labelled(group)]


def labelled(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Add to the column of each run the settings in which the runs differ."""
    settings = [flat(run.config) for run in runs]
    names = dict.fromkeys(name for values in settings for name in values)
    differing = [
        name
        for name in names
        if name not in ("seed", "data.folder", "data.workers")
        and len({repr(values.get(name)) for values in settings}) > 1
    ]
    if not differing:
        return list(runs)
    labels = [", ".join(f"{name}={values.get(name)}" for name in differing) for values in settings]
    return [
        replace(run, config={**run.config, "column": f"{run.config['column']} ({label})"})
        for run, label in zip(runs, labels, strict=True)
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested values with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        found.update(flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value})
    return found


def failure_of(run: StoredRun) -> str | None:
    """Say why a run failed.

    Args:
        run: The run.

    Returns:
        What its result says if it diverged, else what the process that ran it last said; ``None``
        if it did not fail, or finished later.
    """
    if run.result is not None:
        failure: str | None = run.result.get("failure")
        return failure
    path = run.path / FAILURE
    return path.read_text("utf-8") if path.is_file() else None


def succeeded(run: StoredRun) -> bool:
    """Tell whether a run finished and did not diverge."""
    return run.result is not None and failure_of(run) is None


def setting_of(run: StoredRun) -> Setting:
    """Give what a run's sweep varies, sorted by name, such as ``(("data.batch_size", 128),)``."""
    return tuple(sorted((name, hashable(v)) for name, v in run.config["sweep"].items()))


def hashable(value: Any) -> Any:
    """Make a tuple of a list, at every depth."""
    return tuple(map(hashable, value)) if isinstance(value, list) else value


def final(run: StoredRun, metric: Metric) -> float | None:
    """Read a metric's last value, ``None`` if there is none or it is not finite."""
    values = [record[metric.name] for record in run.metrics if metric.name in record]
    return values[-1] if values else None


def best(run: StoredRun, metric: Metric) -> float | None:
    """Read a metric's best value; values that are not finite do not count."""
    values = [record[metric.name] for record in run.metrics if metric.name in record]
    finite = [value for value in values if value is not None]
    return (max if metric.higher else min)(finite, default=None)
