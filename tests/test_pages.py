"""The pages: the files that they name exist, and the code that they show runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


def test_troubleshooting_quotes_messages_that_there_are():
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src" / "nysact").rglob("*.py"))
    messages = " ".join(re.sub(r"""["']\s*\n\s*f?["']""", "", source) for source in sources)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    symptoms = re.findall(r"^\| ([^|]*) \|", page, re.MULTILINE)
    quotes = [quote for each in symptoms for quote in re.findall(r"`([^`]*)`", each)]
    assert len(quotes) > 20
    pieces = [
        piece.strip() for quote in quotes for piece in quote.split("...") if " " in piece.strip()
    ]
    assert [piece for piece in pieces if piece not in messages] == []


def parts():
    """The code of each page; that of each section of a page about several frameworks."""
    for name in ("quickstart", "moving", "troubleshooting", "integrations"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for part in text.split("\n## ") if name == "integrations" else [text]:
            if BLOCK.search(part):
                title = part.partition("\n")[0].strip("# ")
                yield pytest.param(BLOCK.findall(part), id=f"{name}: {title}")


@pytest.mark.parametrize("blocks", list(parts()))
@pytest.mark.filterwarnings("default")  # frameworks give advice
def test_code_runs_as_shown(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block in blocks:
        try:
            exec(block, namespace)
        except ModuleNotFoundError as error:
            pytest.skip(f"needs {error.name}")
