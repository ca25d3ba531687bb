"""A report: tables and figures of each recipe, as files and as one HTML page."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.metrics import METRICS, Metric, Target, metric_of, parse_target
from nysact.experiments.recipes import Recipe
from nysact.experiments.recipes.recipe_file import OF_SETTINGS, Report
from nysact.experiments.report.figures import (
    NORMS,
    curve_figure,
    heatmap_figure,
    norm_figure,
    search_figure,
    varied_figure,
)
from nysact.experiments.report.provenance import (
    details,
    failures,
    mixed_environments,
    settings_table,
    unfinished,
)
from nysact.experiments.report.results import Results, collect
from nysact.experiments.report.style import save
from nysact.experiments.report.tables import (
    Paper,
    Table,
    metric_table,
    ratio_table,
    target_table,
    to_latex,
    to_markdown,
    to_terminal,
    trial_table,
    varied_tables,
)
from nysact.experiments.run.store import StoredRun

Parts = Sequence[tuple[str, Table | Figure | None]]
# The number of trials of a search that a table lists.
TRIALS = 20
# More values than this of a setting are shown as points and not one by one.
MANY = 10
# The metrics by which runs of no recipe are compared: the first that was recorded. A validation set
# is held out to choose by.
USUAL = ["validation_accuracy", "test_accuracy", "validation_loss", "bits_per_byte", "test_loss"]


@dataclass
class Section:
    """The part of a report that shows a recipe, or runs of no known one."""

    title: str
    results: Results
    shown: Report  # how the recipe wants its runs to be shown
    target: Target | None = None  # None for the paper's: 90% of the reference's best
    paper: Paper = field(default_factory=dict)
    recipe: Recipe | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def metric(self) -> Metric:
        """What is compared."""
        return metric_of(self.shown.metric)

    @property
    def kind(self) -> str:
        """A key of KINDS: the recipe's, or one that suits the runs."""
        return self.shown.kind or kind_of(self.results)


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
        recorded = set(results.values["metric"])
        metric = next((name for name in USUAL if name in recorded), "train_loss")
        sections.append(Section(name, results, Report(metric=metric), target))
    for section in sections:
        fill(section)
    return sections


def recipe_section(results: Results, recipe: Recipe, target: Target | None = None) -> Section:
    """Begin a section as the recipe wants it; the paper's numbers are those of its own target."""
    shown = recipe.report
    own = None if shown.target is None else parse_target(str(shown.target))
    other = target is not None and target != own and shown.kind == "target-table"
    paper = {} if other else recipe.paper
    return Section(recipe.title, results, shown, target or own, paper, recipe)


def fill(section: Section) -> None:
    """Make a section's tables and figures, with a note on runs of several environments."""
    parts = [item for make in KINDS[section.kind] for item in make(section)]
    section.figures = {name: part for name, part in parts if isinstance(part, Figure)}
    tables = {name: part for name, part in parts if isinstance(part, Table) and part.frame.size}
    mixed = mixed_environments(section.results)
    section.warnings = [*section.results.warnings, *([] if tables else mixed)]
    section.tables = {
        name: replace(table, notes=[*table.notes, *mixed]) for name, table in tables.items()
    }


def kind_of(results: Results) -> str:
    """Choose a kind by the content of the runs: matrices, norms, a search, a sweep, or a table."""
    sweeps = list(results.runs["sweep"])
    pairs = {(name, str(value)) for sweep in sweeps for name, value in sweep.items()}
    names = [name for name, _ in pairs]
    if any((run.path / "arrays.npz").is_file() for run in results.runs["stored"]):
        return "heatmap"
    if results.values["metric"].str.startswith(NORMS).any():
        return "norms"
    if any(names.count(name) > MANY for name in names) or any(len(sweep) > 1 for sweep in sweeps):
        return "search"
    return "sensitivity" if names else "table"


def metric_parts(section: Section) -> Parts:
    """Compare the metric."""
    name = section.metric.name.replace("_", "-")
    return [
        (name, metric_table(section.results, section.metric, section.paper, at=section.shown.at))
    ]


def cost_parts(section: Section) -> Parts:
    """Compare time and memory, where the reference was run."""
    paper = section.paper if section.kind == "ratio-table" else {}
    return [("costs", ratio_table(section.results, section.shown.reference, paper))]


def target_parts(section: Section) -> Parts:
    """Compare the time to the target, where its reference was run."""
    target = section.target or Target(share=0.9, row=section.shown.reference)
    paper = section.paper if section.kind == "target-table" else {}
    return [("time-to-target", target_table(section.results, section.metric, target, paper))]


def curve_parts(section: Section) -> Parts:
    """Draw the training by epoch and by time."""
    metrics = list(dict.fromkeys([METRICS["train_loss"], section.metric]))
    draw = partial(curve_figure, section.results, metrics)
    return [(f"curves-by-{by}", draw(by=by)) for by in ("epoch", "time")]


def varied_parts(section: Section) -> Parts:
    """Show the settings that were varied one at a time."""
    results, metric = section.results, section.metric
    figure = varied_figure(results, metric, time=section.kind == "interval")
    return [("settings", figure), *varied_tables(results, metric).items()]


def search_parts(section: Section) -> Parts:
    """Show the trials of a search."""
    results, metric = section.results, section.metric
    figure, table = search_figure(results, metric), trial_table(results, metric, TRIALS)
    return [("trials", figure), ("trials", table)]


KINDS: Mapping[str, Sequence[Callable[[Section], Parts]]] = {
    "table": (metric_parts, curve_parts, cost_parts, target_parts),
    "ratio-table": (cost_parts,),
    "target-table": (target_parts, curve_parts),
    "curves": (curve_parts, metric_parts, target_parts),
    "sensitivity": (varied_parts,),
    "interval": (varied_parts,),
    "rank": (varied_parts, metric_parts),
    "norms": (lambda one: [("covariance-norms", norm_figure(one.results))], curve_parts),
    "heatmap": (lambda one: [("covariances", heatmap_figure(one.results))],),
    "search": (search_parts,),
    # The settings of a recipe need no runs.
    **dict.fromkeys(OF_SETTINGS, (lambda one: [("settings", settings_table(one.recipe))],)),
}


def to_html(sections: Sequence[Section], pictures: Mapping[str, Mapping[str, Path]]) -> str:
    """Write the page, with the SVG files of each section's figures in it."""
    environment = Environment(
        loader=PackageLoader("nysact.experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Several sections may show the same run, which counts once.
    frames = [section.results.runs for section in sections]
    states = {run.stored.path: run.state for frame in frames for run in frame.itertuples()}
    return environment.get_template("page.html.jinja").render(
        parts=sections,
        pictures=pictures,
        counts=Counter(states.values()),
        written=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        embedded=lambda path: b64encode(path.read_bytes()).decode(),
        **{"details": details, "failures": failures, "unfinished": unfinished},
    )


def write_report(sections: Sequence[Section], output: Path, console: Console) -> Path:
    """Write tables, figures and the page, and show the tables."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        pictures = {section.results.name: write_section(section, output) for section in sections}
        page = output / "report.html"
        page.write_text(to_html(sections, pictures), encoding="utf-8")
    except OSError as error:
        raise ExperimentError(
            f"--output {output}: cannot be written to ({error.strerror}); "
            "expected a folder that exists or can be made"
        ) from error
    for section in sections:
        show(section, console)
    console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False, markup=False)
    return page


def write_section(section: Section, output: Path) -> Mapping[str, Path]:
    """Write the tables and figures of a section; give the SVG files of the figures."""
    stem = section.results.name
    for name, table in section.tables.items():
        for suffix, text in (("md", to_markdown(table)), ("tex", to_latex(table))):
            (output / f"{stem}-{name}.{suffix}").write_text(text, encoding="utf-8")
    return {
        name: save(figure, output / f"{stem}-{name}")[-1]
        for name, figure in section.figures.items()
    }


def show(section: Section, console: Console) -> None:
    """Show the tables of a section, and its failed and unfinished runs, on the terminal."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    say(section.title, "bold")
    for warning in section.warnings:
        say(f"Warning: {warning}", "yellow")
    for table in section.tables.values():
        console.print(to_terminal(table))
    for name, reason in failures(section.results):
        say(f"Failed: {name}", "red")
        say(reason, "dim")
    missing = unfinished(section.results)
    if missing:
        say(f"Not finished ({len(missing)}): {'; '.join(missing)}")
