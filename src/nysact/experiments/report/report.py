"""Write a report: a folder of tables and figures, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.report.formats import to_latex, to_markdown, to_terminal
from nysact.experiments.report.page import to_html
from nysact.experiments.report.provenance import failures, unfinished
from nysact.experiments.report.sections import Section, sections_of
from nysact.experiments.report.style import save

__all__ = ["sections_of", "write_report"]


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
