"""One page for all tests that look at one, for it takes seconds to make."""

import pytest

from nysact.experiments.report.page import to_html
from nysact.experiments.report.report import sections_of, write_section
from nysact.experiments.run.store import load_runs

from .stored import write_run, write_table


def page_of(root, output):
    """Write tables and figures of all runs, and give the page that holds them."""
    output.mkdir()
    sections = sections_of(load_runs(root))
    pictures = {section.results.name: write_section(section, output) for section in sections}
    return to_html(sections, pictures)


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs = folder / "runs"
    write_table(runs, columns=["LeNet-5"])
    reason = "a\n\nb\nc\nd\nMemory <full>"
    write_run(runs, "FOOF", 0, column="ResNet-20", finished=False, failure=reason)
    write_run(runs, "SGD", 0, column="ResNet-20", finished=False)
    return page_of(runs, folder / "out")
