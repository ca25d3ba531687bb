"""The pages that name files: each exists, and no link to one reaches a package index."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?!https?:|#)([^)]*)\)")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(name):
    links = LINK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_package_index_gets_no_relative_link():
    command = [sys.executable, "-m", "hatch_fancy_pypi_readme", ROOT / "pyproject.toml"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "NysAct(model, lr=0.1)" in shown
    assert "](https://doi.org/" in shown
    assert LINK.findall(shown) == []


def test_compatibility_names_tests_that_exist():
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "test_" in line]
    missing = []
    for row in rows:
        folder = Path()
        for name in re.findall(r"`([\w/]*test_\w+\.py)`", row):
            folder = Path(name).parent if "/" in name else folder
            if not (ROOT / "tests" / folder / Path(name).name).exists():
                missing.append(name)
    assert len(rows) > 50
    assert missing == []
