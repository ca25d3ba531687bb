"""What a report shows of each recipe: its tables and figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from matplotlib.figure import Figure

from nysact.experiments.metrics import METRICS, Metric
from nysact.experiments.recipes import Recipe
from nysact.experiments.report.figures.curves import curve_figure
from nysact.experiments.report.figures.heatmaps import heatmap_figure
from nysact.experiments.report.figures.norms import norm_figure
from nysact.experiments.report.figures.search import search_figure
from nysact.experiments.report.figures.varied import TIME, measure_of, varied_figure
from nysact.experiments.report.provenance import mixed_environments
from nysact.experiments.report.results import Results
from nysact.experiments.report.settings import settings_table
from nysact.experiments.report.table import Table
from nysact.experiments.report.tables import (
    Paper,
    metric_table,
    ratio_table,
    target_table,
    trial_table,
    varied_tables,
)
from nysact.experiments.target import Target, parse_target

# How many trials of a search a table lists.
TRIALS = 20
# More values than this of a setting are shown as points and not one by one.
MANY = 10


@dataclass(frozen=True)
class Wanted:
    """What is to be shown of a recipe.

    Args:
        title: Its heading.
        kind: A key of :data:`KINDS`, ``None`` for whatever the runs have to show.
        metric: What its tables compare.
        at: ``"final"`` or ``"best"``.
        reference: The row to which time and memory are relative.
        target: What the time to a target is measured for, ``None`` for the share that the paper
            takes: 90% of the reference's best.
        paper: The paper's numbers.
        recipe: The recipe, ``None`` for runs of no known one.
    """

    title: str
    kind: str | None = None
    metric: Metric = METRICS["test_accuracy"]
    at: str = "final"
    reference: str = "SGD"
    target: Target | None = None
    paper: Paper = field(default_factory=dict)
    recipe: Recipe | None = None


@dataclass
class Section:
    """What a report shows of a recipe.

    Args:
        results: Its runs.
        wanted: What was asked for.
        tables: Tables by the names of their files.
        figures: Figures likewise.
        warnings: What the reader must know of the runs, a sentence each.
    """

    results: Results
    wanted: Wanted
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add_figure(self, name: str, figure: Figure | None) -> None:
        """Add a figure if there was something to draw."""
        if figure is not None:
            self.figures[name] = figure


def add_metric(section: Section) -> None:
    """Add the table of the metric."""
    results, wanted = section.results, section.wanted
    if any(not group.setting for group in results.groups):
        table = metric_table(results, wanted.metric, wanted.paper, at=wanted.at)
        section.tables[wanted.metric.name.replace("_", "-")] = table


def add_ratios(section: Section) -> None:
    """Add the table of time and memory, where its reference was run."""
    results, wanted = section.results, section.wanted
    paper = wanted.paper if wanted.kind == "ratio-table" else {}
    table = ratio_table(results, wanted.reference, paper)
    if len(table.headings) > 1:
        section.tables["costs"] = table


def add_targets(section: Section) -> None:
    """Add the table of the time to the target, where its reference was run."""
    results, wanted = section.results, section.wanted
    target = wanted.target or Target(share=0.9, row=wanted.reference)
    paper = wanted.paper if wanted.kind == "target-table" else {}
    table = target_table(results, wanted.metric, target, paper)
    if len(table.headings) > 1:
        section.tables["time-to-target"] = table


def add_curves(section: Section) -> None:
    """Add the curves by epoch and by time."""
    metrics = [METRICS["train_loss"], section.wanted.metric]
    for by in ("epoch", "time"):
        section.add_figure(f"curves-by-{by}", curve_figure(section.results, metrics, by=by))


def add_varied(section: Section) -> None:
    """Add what was varied, one setting at a time."""
    results, metric = section.results, section.wanted.metric
    if any(group.setting for group in results.groups):
        measures = [measure_of(metric), *([TIME] if section.wanted.kind == "interval" else [])]
        section.add_figure("settings", varied_figure(results, measures))
        section.tables.update(varied_tables(results, metric))


def add_search(section: Section) -> None:
    """Add the trials of a search."""
    results, metric = section.results, section.wanted.metric
    if any(group.setting for group in results.groups):
        section.add_figure("trials", search_figure(results, metric))
        section.tables["trials"] = trial_table(results, metric, TRIALS)


def add_norms(section: Section) -> None:
    """Add the norms of the covariances."""
    section.add_figure("covariance-norms", norm_figure(section.results))


def add_heatmaps(section: Section) -> None:
    """Add the heat maps of covariances and of what approximates them."""
    section.add_figure("covariances", heatmap_figure(section.results))


def add_settings(section: Section) -> None:
    """Add the settings of the recipe, for which nothing needs to be run."""
    recipe = section.wanted.recipe
    if recipe is not None:
        section.tables["settings"] = settings_table(recipe)


Part = Callable[[Section], None]
KINDS: Mapping[str, tuple[Part, ...]] = {
    "table": (add_metric, add_curves, add_ratios, add_targets),
    "ratio-table": (add_ratios,),
    "target-table": (add_targets, add_curves),
    "curves": (add_curves, add_metric, add_targets),
    "sensitivity": (add_varied,),
    "interval": (add_varied,),
    "rank": (add_varied, add_metric),
    "norms": (add_norms, add_curves),
    "heatmap": (add_heatmaps,),
    "search": (add_search,),
    "settings": (add_settings,),
    "training": (add_settings,),
}


def section_of(results: Results, wanted: Wanted) -> Section:
    """Make the tables and figures of a recipe.

    Args:
        results: Its runs.
        wanted: What is to be shown.

    Returns:
        The section.
    """
    section = Section(results, wanted)
    for part in KINDS[wanted.kind or kind_of(results)]:
        part(section)
    mixed = mixed_environments(results)
    section.warnings = [*results.warnings, *([] if section.tables else mixed)]
    section.tables = {
        name: replace(table, notes=[*table.notes, *mixed]) for name, table in section.tables.items()
    }
    return section


def kind_of(results: Results) -> str:
    """Choose a kind for runs of no known recipe.

    Args:
        results: The runs.

    Returns:
        What there is to show: recorded norms or matrices, else a search where several settings
        are varied together or one has many values, else one setting at a time, else a table.
    """
    settings = [group.setting for group in results.groups]
    values: dict[str, set[Any]] = {}
    for name, value in (pair for setting in settings for pair in setting):
        values.setdefault(name, set()).add(value)
    if any((run.path / "arrays.npz").is_file() for run in results.runs):
        return "heatmap"
    if any("covariance_norms" in record for run in results.runs for record in run.metrics):
        return "norms"
    many = any(len(found) > MANY for found in values.values())
    if many or any(len(setting) > 1 for setting in settings):
        return "search"
    return "sensitivity" if any(settings) else "table"


def wanted_of(recipe: Recipe, target: Target | None = None) -> Wanted:
    """Read what a recipe says of its report.

    Args:
        recipe: The recipe.
        target: Another target than its own, which is not the one of the paper's numbers.

    Returns:
        What is wanted.
    """
    report = recipe.report
    own = None if report.target is None else parse_target(str(report.target))
    other = target is not None and target != own and report.kind == "target-table"
    return Wanted(
        title=recipe.title,
        kind=report.kind,
        metric=METRICS[report.metric],
        at=report.at,
        reference=report.reference,
        target=own if target is None else target,
        paper={} if other else recipe.paper,
        recipe=recipe,
    )
