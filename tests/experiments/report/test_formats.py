"""Tables in Markdown, LaTeX and on the terminal."""

import re
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from nysact.experiments.report.formats import LATEX_SPECIAL, to_latex, to_markdown, to_terminal
from nysact.experiments.report.table import Cell, Mark, Table, marked

TABLE = Table(
    "Accuracy (%)",
    ["optimizer", "A_1 & B"],
    [
        ("SGD", [Cell("90.00 ± 0.10", paper="92.80 ± 0.21")]),
        ("NysAct", [Cell("91.00 ± 0.10", Mark.BEST)]),
        ("Adam [x]", [Cell("89.00", Mark.SECOND, note="n=2/3")]),
    ],
    ["In brackets: the paper's number."],
)


def test_best_and_second_best_are_marked_and_ties_share():
    cells = [Cell(str(value)) for value in (3, 1, 3, 2)]
    marks = [cell.mark for cell in marked(cells, [3, 1, 3, 2], higher=True)]
    assert marks == [Mark.BEST, Mark.NONE, Mark.BEST, Mark.SECOND]
    marks = [cell.mark for cell in marked(cells, [3, 1, 3, 2], higher=False)]
    assert marks == [Mark.NONE, Mark.BEST, Mark.NONE, Mark.SECOND]


def test_a_cell_that_does_not_compete_is_not_marked():
    cells = [Cell("9"), Cell("1"), Cell("2")]
    marks = [cell.mark for cell in marked(cells, [None, 1, 2], higher=True)]
    assert marks == [Mark.NONE, Mark.SECOND, Mark.BEST]


def test_nothing_is_best_of_one():
    assert marked([Cell("1"), Cell("–")], [1, None], higher=True)[0].mark is Mark.NONE


def test_markdown_is_read_as_the_table():
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(TABLE))
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html)
    assert cells == [
        *("optimizer", "A_1 &amp; B", "SGD", "90.00 ± 0.10 [92.80 ± 0.21]"),
        *("NysAct", "<strong>91.00 ± 0.10</strong>", "Adam [x]", "<u>89.00</u> (n=2/3)"),
    ]


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])))
def test_markdown_shows_any_name_as_it_is(name):
    table = Table("T", ["optimizer", "x"], [(f"a{name}", [Cell("1")])])
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(table))
    shown = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)[0]
    assert unescaped(shown) == f"a{name}"


def unescaped(html: str) -> str:
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = html.replace(entity, char)
    return html


def test_latex_has_marks_and_escapes():
    text = to_latex(TABLE)
    assert r"A\_1 \& B" in text
    assert r"\textbf{91.00 $\pm$ 0.10}" in text
    assert r"\underline{89.00} (n=2/3)" in text
    assert r"90.00 $\pm$ 0.10 {[}92.80 $\pm$ 0.21{]}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


@given(st.text(alphabet=[*LATEX_SPECIAL, "a", "1", " "]))
def test_latex_escapes_can_be_undone(name):
    """No command of the text survives: what LaTeX prints is the text."""
    row = to_latex(Table("T", ["a", "b"], [("x", [Cell(name)])])).splitlines()[7]
    assert row.startswith("    x & ")
    rest = row.removeprefix("    x & ").removesuffix(r" \\")
    commands = sorted(LATEX_SPECIAL.items(), key=lambda item: -len(item[1]))
    read = ""
    while rest:
        char, length = next(
            ((char, len(tex)) for char, tex in commands if rest.startswith(tex)), (rest[0], 1)
        )
        assert length > 1 or char not in LATEX_SPECIAL
        read, rest = read + char, rest[length:]
    assert read == name


@pytest.mark.parametrize("width", [60, 100])
def test_terminal_shows_every_cell(width):
    console = Console(width=width, file=StringIO(), force_terminal=True)
    console.print(to_terminal(TABLE))
    shown = console.file.getvalue()
    assert "\x1b[1m91.00 ± 0.10" in shown
    assert "\x1b[4m89.00" in shown
    for text in ("[92.80 ± 0.21]", "n=2/3", "Adam [x]", "the paper's number"):
        assert text in shown
