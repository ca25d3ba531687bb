"""What a recipe's file may hold, and the check that every name in it exists."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeInt

from nysact.experiments.config import Value
from nysact.experiments.config.data import Section
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.metrics import METRICS, parse_target

# How runs can be shown; what each kind shows stands in the report's sections.
KINDS = (
    *("table", "ratio-table", "target-table", "curves", "sensitivity", "interval", "rank"),
    *("norms", "heatmap", "search", "settings", "training"),
)
# The kinds that show settings and need no runs.
OF_SETTINGS = ("settings", "training")
# What the runner sets in each run.
LABELS = ("recipe", "row", "column", "seed", "sweep")


class Sweep(Section):
    """A setting that is varied."""

    name: str  # dotted
    values: list[Value] = Field(min_length=1)
    rows: list[str] | None = None  # in which it is varied, None for all


class Report(Section):
    """How runs are shown."""

    kind: str | None = None  # one of KINDS, None for whatever the runs have to show
    metric: str = "test_accuracy"  # what tables compare
    at: Literal["final", "best"] = "final"  # the metric's last or best value
    reference: str = "SGD"  # the row to which time and memory are relative
    target: str | int | float | None = None  # of time to a target, None for 90% of the reference's
    names: list[str] = Field(default_factory=list)  # dotted, for a table of settings


class RecipeFile(Section):
    """What a recipe's file may hold."""

    title: str
    source: str | None = None  # the recipe whose runs it shows, None for its own
    report: Report = Report()
    seeds: list[NonNegativeInt] = Field(default=[0], min_length=1)
    run: dict[str, Any] = Field(default_factory=dict)  # what all runs have in common
    rows: dict[str, dict[str, Any]] = Field(default_factory=dict)  # what differs in each
    # What differs in each, or a list of columns of the source.
    columns: dict[str, dict[str, Any]] | list[str] = Field(default_factory=dict)
    sweeps: list[Sweep] = Field(default_factory=list)
    paper: dict[str, dict[str, str]] = Field(default_factory=dict)  # its numbers by row and column


def check_file(content: RecipeFile, source: RecipeFile | None) -> None:
    """Make sure that every row, column, kind and metric that a file names exists."""
    if source is not None:
        check_source(content, source)
    elif isinstance(content.columns, list):
        raise ExperimentError("columns: a list picks those of a source: give source, or tables")
    runs = source or content
    if not runs.rows or not isinstance(runs.columns, dict) or not runs.columns:
        raise ExperimentError("rows and columns: expected a section of each, such as [rows.SGD]")
    for sweep in runs.sweeps:
        check_names(f"sweeps, {sweep.name}: there is no row", sweep.rows or (), runs.rows)
    check_settings("run", runs.run)
    for row, settings in runs.rows.items():
        check_settings(f"rows.{row}", settings)
    for column, settings in runs.columns.items():
        check_settings(f"columns.{column}", settings)
        cells = settings.get("rows", {})
        check_settings(f"columns.{column}.rows", cells)
        check_names(f"columns.{column}.rows: there is no row", cells, runs.rows)
        for row, cell in cells.items():
            check_settings(f"columns.{column}.rows.{row}", cell)
    shown = content.columns if isinstance(content.columns, list) else list(runs.columns)
    check_names("columns: there is no column", shown, runs.columns)
    check_report(content.report, list(runs.rows))
    rows, columns = list(runs.rows), shown
    if content.report.kind == "settings":
        columns = content.report.names
    elif content.report.kind == "training":
        rows = content.report.names
    check_names("paper: there is no row", content.paper, rows)
    for row, numbers in content.paper.items():
        check_names(f"paper.{row}: there is no column", numbers, columns)


def check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Make sure that names are known."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ExperimentError(f"{what} {unknown(name, known)}")


def check_source(content: RecipeFile, source: RecipeFile) -> None:
    """Make sure that a file which shows the runs of a source has none of its own."""
    if source.source is not None:
        raise ExperimentError(
            f"source={content.source!r} shows the runs of {source.source!r}: name that one"
        )
    own = [name for name in ("run", "rows", "sweeps") if getattr(content, name)]
    own += ["columns"] * (isinstance(content.columns, dict) and bool(content.columns))
    if own:
        raise ExperimentError(
            f"{', '.join(own)}: a recipe with source={content.source!r} shows the runs of that "
            "one: leave out what changes runs, and list columns by their names alone"
        )


def check_settings(name: str, settings: Any) -> None:
    """Make sure that a part of a file is a section, and changes no label."""
    if not isinstance(settings, Mapping):
        raise ExperimentError(f"{name}={settings!r}: expected a section of settings")
    for label in LABELS:
        if label in settings:
            raise ExperimentError(f"{name}.{label}: each run is given its own; leave it out")


def check_report(report: Report, rows: Iterable[str]) -> None:
    """Make sure that what a report names exists."""
    if report.kind is not None:
        check_names("report.kind is", [report.kind], KINDS)
    check_names("report.metric is", [report.metric], METRICS)
    if "reference" in report.model_fields_set:
        check_names("report.reference is", [report.reference], rows)
    if report.target is not None:
        row = parse_target(str(report.target)).row
        check_names("report.target: there is no row", [row] if row else [], rows)
    if (report.kind in OF_SETTINGS) != bool(report.names):
        raise ExperimentError(
            f"report.names: expected settings with the kinds {' and '.join(OF_SETTINGS)}, such as "
            '["optimizer.options.lr"], and none with another kind'
        )
