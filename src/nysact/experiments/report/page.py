"""A report as one HTML page that needs nothing else."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nysact.experiments.report.provenance import details, failures, unfinished
from nysact.experiments.report.sections import Section

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
