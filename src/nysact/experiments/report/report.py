"""A report: tables and figures as files, and one HTML page that needs nothing else."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.report.provenance import details, failures, unfinished
from nysact.experiments.report.sections import Section, sections_of
from nysact.experiments.report.style import save
from nysact.experiments.report.table import to_latex, to_markdown, to_terminal

PAGE = "page.html.jinja"
Pictures = Mapping[str, Path]


def to_html(sections: Sequence[Section], pictures: Mapping[str, Pictures]) -> str:
    """Write the page, with the SVG files of each section's figures in it."""
    environment = Environment(
        loader=PackageLoader("nysact.experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [part(section, pictures[section.results.name]) for section in sections]
    written = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    return environment.get_template(PAGE).render(
        parts=parts, written=written, summary=summary(sections)
    )


def summary(sections: Sequence[Section]) -> str:
    """Count the runs of all sections, each once: several may show the same."""
    runs = [section.results.runs for section in sections]
    found = {run.stored.path: run.state for frame in runs for run in frame.itertuples()}
    states = list(found.values())
    counts = [f"{states.count(state)} {state}" for state in ("failed", "unfinished")]
    others = [text for text in counts if not text.startswith("0 ")]
    finished = f"{states.count('finished')} of {len(states)} runs finished"
    shown = f"{len(sections)} section{'s' * (len(sections) != 1)}"
    return ", ".join([shown, *([finished] if states else []), *others]) + "."


def part(section: Section, pictures: Pictures) -> dict[str, Any]:
    """Gather what the page shows of a section."""
    runs = section.results.runs
    return {
        "name": section.results.name,
        "title": section.title,
        "finished": int((runs["state"] == "finished").sum()),
        "runs": len(runs),
        "seeds": int(runs["seed"].nunique()),
        "warnings": section.warnings,
        "tables": list(section.tables.values()),
        "pictures": [(n.replace("-", " "), embedded(path)) for n, path in pictures.items()],
        "details": details(section.results) if len(runs) else [],
        "failures": failures(section.results),
        "unfinished": unfinished(section.results),
    }


def embedded(path: Path) -> str:
    """Write an SVG file as an address that holds all of it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


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
