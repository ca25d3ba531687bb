"""The tables and figures that a report shows of each recipe."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from nysact.experiments.metrics import METRICS, Metric, metric_of
from nysact.experiments.recipes import Recipe
from nysact.experiments.report import tables
from nysact.experiments.report.figures.curves import curve_figure
from nysact.experiments.report.figures.heatmaps import heatmap_figure
from nysact.experiments.report.figures.norms import KEY, norm_figure
from nysact.experiments.report.figures.search import grid_figure, search_figure
from nysact.experiments.report.figures.varied import measure_of, time_of, varied_figure
from nysact.experiments.report.provenance import mixed_environments
from nysact.experiments.report.results import Results, collect
from nysact.experiments.report.settings import settings_table
from nysact.experiments.report.table import Table
from nysact.experiments.run.store import StoredRun
from nysact.experiments.target import Target, parse_target

# The number of trials of a search that a table lists.
TRIALS = 20
# More values than this of a setting are shown as points and not one by one.
MANY = 10
# The metrics by which runs of no recipe are compared: the first that was recorded. A validation set
# is held out to choose by.
USUAL = (
    *("validation_accuracy", "test_accuracy", "validation_loss", "bits_per_byte", "test_loss"),
    "train_loss",
)


@dataclass
class Section:
    """The part of a report that shows a recipe, or runs of no known one."""

    title: str
    results: Results
    metric: Metric
    kind: str | None = None  # a key of KINDS, None for one that suits the runs
    at: str = "final"  # or "best"
    reference: str = "SGD"  # the row to which costs and targets are relative
    target: Target | None = None  # None for the paper's: 90% of the reference's best
    paper: tables.Paper = field(default_factory=dict)
    recipe: Recipe | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add_table(self, name: str, table: Table) -> None:
        """Add a table that has columns."""
        if table.frame.size:
            self.tables[name] = table

    def add_figure(self, name: str, figure: Figure | None) -> None:
        """Add a figure if there was something to draw."""
        if figure is not None:
            self.figures[name] = figure


def sections_of(
    runs: Iterable[StoredRun],
    recipes: Sequence[Recipe] = (),
    target: Target | None = None,
    seeds: int | None = None,
) -> list[Section]:
    """Make a section for each recipe that shows some of the runs, and for runs of no recipe."""
    stored: dict[str, list[StoredRun]] = {}
    for run in runs:
        stored.setdefault(run.config["recipe"], []).append(run)
    sections = []
    for recipe in recipes:
        source = stored.get(recipe.source, ()) if recipe.needs_runs else ()
        found = [run for run in source if run.config["column"] in recipe.columns]
        if found or not recipe.needs_runs:
            results = collect(recipe.name, found, recipe, seeds)
            sections.append(recipe_section(results, recipe, target))
    for name in sorted(stored.keys() - {recipe.source for recipe in recipes}):
        results = collect(name, stored[name], seeds=seeds)
        sections.append(Section(name, results, usual_metric(results), target=target))
    for section in sections:
        fill(section)
    return sections


def recipe_section(results: Results, recipe: Recipe, target: Target | None = None) -> Section:
    """Begin a section as the recipe wants it; the paper's numbers are those of its own target."""
    report = recipe.report
    own = None if report.target is None else parse_target(str(report.target))
    other = target is not None and target != own and report.kind == "target-table"
    return Section(
        title=recipe.title,
        results=results,
        metric=METRICS[report.metric],
        kind=report.kind,
        at=report.at,
        reference=report.reference,
        target=own if target is None else target,
        paper={} if other else recipe.paper,
        recipe=recipe,
    )


def usual_metric(results: Results) -> Metric:
    """Choose a metric for runs of no recipe."""
    recorded = set(results.values["metric"])
    return metric_of(next((name for name in USUAL if name in recorded), USUAL[-1]))


def fill(section: Section) -> None:
    """Make a section's tables and figures, with a note on runs of several environments."""
    section.kind = section.kind or kind_of(section.results)
    for part in KINDS[section.kind]:
        part(section)
    mixed = mixed_environments(section.results)
    section.warnings = [*section.results.warnings, *([] if section.tables else mixed)]
    section.tables = {
        name: replace(table, notes=[*table.notes, *mixed]) for name, table in section.tables.items()
    }


def kind_of(results: Results) -> str:
    """Choose a kind by the content of the runs: matrices, norms, a search, a sweep, or a table."""
    sweeps = list(results.runs["sweep"])
    pairs = {(name, str(value)) for sweep in sweeps for name, value in sweep.items()}
    names = [name for name, _ in pairs]
    if any((run.path / "arrays.npz").is_file() for run in results.stored):
        return "heatmap"
    if results.values["metric"].str.startswith(KEY).any():
        return "norms"
    if any(names.count(name) > MANY for name in names) or any(len(sweep) > 1 for sweep in sweeps):
        return "search"
    return "sensitivity" if names else "table"


def add_metric(section: Section) -> None:
    """Add the table of the metric."""
    table = tables.metric_table(section.results, section.metric, section.paper, at=section.at)
    section.add_table(section.metric.name.replace("_", "-"), table)


def add_ratios(section: Section) -> None:
    """Add the table of time and memory, where the reference was run."""
    paper = section.paper if section.kind == "ratio-table" else {}
    section.add_table("costs", tables.ratio_table(section.results, section.reference, paper))


def add_targets(section: Section) -> None:
    """Add the table of the time to the target, where its reference was run."""
    target = section.target or Target(share=0.9, row=section.reference)
    paper = section.paper if section.kind == "target-table" else {}
    table = tables.target_table(section.results, section.metric, target, paper)
    section.add_table("time-to-target", table)


def add_curves(section: Section) -> None:
    """Add the curves by epoch and by time."""
    metrics = list(dict.fromkeys([METRICS["train_loss"], section.metric]))
    for by in ("epoch", "time"):
        section.add_figure(f"curves-by-{by}", curve_figure(section.results, metrics, by=by))


def add_varied(section: Section) -> None:
    """Add the settings that were varied one at a time."""
    results, metric = section.results, section.metric
    measures = [measure_of(results, metric)]
    measures += [time_of(results)] if section.kind == "interval" else []
    section.add_figure("settings", varied_figure(results, measures))
    for name, table in tables.varied_tables(results, metric).items():
        section.add_table(name, table)


def add_search(section: Section) -> None:
    """Add the trials of a search."""
    results, metric = section.results, section.metric
    section.add_figure("trials", search_figure(results, metric))
    section.add_figure("grid", grid_figure(results, metric))
    section.add_table("trials", tables.trial_table(results, metric, TRIALS))


def add_norms(section: Section) -> None:
    """Add the norms of the covariances."""
    section.add_figure("covariance-norms", norm_figure(section.results))


def add_heatmaps(section: Section) -> None:
    """Add the heat maps of covariances and of their approximations."""
    section.add_figure("covariances", heatmap_figure(section.results))


def add_settings(section: Section) -> None:
    """Add the settings of the recipe, which need no runs."""
    if section.recipe is not None:
        section.add_table("settings", settings_table(section.recipe))


KINDS: Mapping[str, Sequence[Callable[[Section], None]]] = {
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
