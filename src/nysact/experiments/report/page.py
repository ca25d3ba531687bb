"""A report as one HTML page that needs nothing else: to look at, to send, to print."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nysact.experiments.report.provenance import (
    environments,
    failures,
    optimizer_settings,
    training_settings,
    unfinished,
)
from nysact.experiments.report.sections import Section

PAGE = "page.html.jinja"


def to_html(sections: Sequence[Section], pictures: Mapping[str, Mapping[str, Path]]) -> str:
    """Write the page.

    Args:
        sections: What it shows.
        pictures: For each section's name the SVG files of its figures, by their names.

    Returns:
        The page, pictures included.
    """
    environment = Environment(
        loader=PackageLoader("nysact.experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(PAGE).render(
        parts=[
            {
                "name": section.results.name,
                "title": section.wanted.title,
                "finished": sum(run.result is not None for run in section.results.runs),
                "runs": len(section.results.runs),
                "seeds": section.results.seeds,
                "warnings": section.warnings,
                "tables": list(section.tables.values()),
                "pictures": [
                    (name.replace("-", " "), embedded(path))
                    for name, path in pictures[section.results.name].items()
                ],
                "details": [
                    optimizer_settings(section.results),
                    training_settings(section.results),
                    environments(section.results),
                ],
                "failures": failures(section.results),
                "unfinished": unfinished(section.results),
            }
            for section in sections
        ]
    )


def embedded(path: Path) -> str:
    """Write an SVG file as an address that holds all of it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
