"""From stored runs to a folder of tables and figures and a page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.metrics import Metric, metric_of
from nysact.experiments.recipes import Recipe
from nysact.experiments.report.formats import to_latex, to_markdown, to_terminal
from nysact.experiments.report.page import to_html
from nysact.experiments.report.provenance import failures, unfinished
from nysact.experiments.report.results import collect
from nysact.experiments.report.sections import Section, Wanted, section_of, wanted_of
from nysact.experiments.report.style import save
from nysact.experiments.run.store import StoredRun
from nysact.experiments.target import Target


def sections_of(
    runs: Iterable[StoredRun],
    recipes: Sequence[Recipe] = (),
    target: Target | None = None,
    seeds: int | None = None,
) -> list[Section]:
    """Make a section for each recipe that shows some of the runs, or settings alone.

    Args:
        runs: The runs.
        recipes: The recipes; runs of no recipe among them get a section of their own.
        target: The target of the time to a target, ``None`` for that of the recipe.
        seeds: How many seeds were asked for, ``None`` for the recipe's.

    Returns:
        The sections, those of recipes first.
    """
    stored: dict[str, list[StoredRun]] = {}
    for run in runs:
        stored.setdefault(run.config["recipe"], []).append(run)
    sections = []
    for recipe in recipes:
        source = stored.get(recipe.source, ()) if recipe.needs_runs else ()
        found = [run for run in source if run.config["column"] in recipe.columns]
        if found or not recipe.needs_runs:
            results = collect(recipe.name, found, recipe, seeds)
            sections.append(section_of(results, wanted_of(recipe, target)))
    for name in sorted(stored.keys() - {recipe.source for recipe in recipes}):
        wanted = Wanted(title=name, metric=metric_in(stored[name]), target=target)
        sections.append(section_of(collect(name, stored[name], seeds=seeds), wanted))
    return sections


def metric_in(runs: Iterable[StoredRun]) -> Metric:
    """Choose what to compare runs of no recipe by: the first of the usual metrics that occurs.

    Args:
        runs: The runs.

    Returns:
        The metric; where there is a validation set, it is there to choose by.
    """
    recorded = {name for run in runs for record in run.metrics for name in record}
    usual = (
        *("validation_accuracy", "test_accuracy"),
        *("validation_loss", "bits_per_byte", "test_loss"),
    )
    return metric_of(next((name for name in usual if name in recorded), "train_loss"))


def write_report(sections: Sequence[Section], output: Path, console: Console) -> Path:
    """Write tables, figures and the page, and show the tables.

    Args:
        sections: What to write.
        output: The folder, which need not exist.
        console: Where to show the tables.

    Returns:
        The page's file.

    Raises:
        ExperimentError: If the folder cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        pictures = {s.results.name: write_section(s, output) for s in sections}
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
    """Write the tables and figures of a recipe.

    Args:
        section: The recipe.
        output: The folder.

    Returns:
        The SVG files of the figures by their names.
    """
    stem = section.results.name
    for name, table in section.tables.items():
        for suffix, text in (("md", to_markdown(table)), ("tex", to_latex(table))):
            (output / f"{stem}-{name}.{suffix}").write_text(text, encoding="utf-8")
    return {
        name: next(p for p in save(figure, output / f"{stem}-{name}") if p.suffix == ".svg")
        for name, figure in section.figures.items()
    }


def show(section: Section, console: Console) -> None:
    """Show the tables of a recipe, and what failed or is missing, on the terminal."""
    console.print(section.wanted.title, style="bold", highlight=False, markup=False)
    for warning in section.warnings:
        text = f"Warning: {warning}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for table in section.tables.values():
        console.print(to_terminal(table))
    for name, reason in failures(section.results):
        console.print(f"Failed: {name}", style="red", highlight=False, markup=False)
        console.print(reason, style="dim", highlight=False, markup=False, soft_wrap=True)
    missing = unfinished(section.results)
    if missing:
        text = f"Not finished ({len(missing)}): {'; '.join(missing)}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
