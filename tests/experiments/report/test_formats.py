"""Tables in Markdown, LaTeX and on the terminal."""

import re
from io import StringIO

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from nysact.experiments.report.tables import (
    LATEX_SPECIAL,
    Cell,
    Table,
    rank_marks,
    text_table,
    to_latex,
    to_markdown,
    to_terminal,
)

TABLE = Table(
    "Accuracy (%)",
    pd.DataFrame(
        {
            "A_1 & B": [
                Cell("90.00 ± 0.10", paper="92.80 ± 0.21"),
                Cell("91.00 ± 0.10", "best"),
                Cell("89.00", "second", note="n=2/3"),
            ]
        },
        index=pd.Index(["SGD", "NysAct", "Adam [x]"], name="optimizer"),
    ),
    ["In brackets: the paper's number."],
)


def marks(values, *, higher):
    return list(rank_marks(pd.Series(values, dtype=float), higher=higher))


def test_best_and_second_best_are_marked_and_ties_share():
    assert marks([3, 1, 3, 2], higher=True) == ["best", "", "best", "second"]
    assert marks([3, 1, 3, 2], higher=False) == ["", "best", "", "second"]


def test_incomplete_cells_and_a_cell_alone_are_not_marked():
    assert marks([None, 1, 2], higher=True) == ["", "second", "best"]
    assert marks([1, None], higher=True) == ["", ""]


def test_markdown_is_read_as_the_table():
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(TABLE))
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html)
    assert cells == [
        *("optimizer", "A_1 &amp; B", "SGD", "90.00 ± 0.10 [92.80 ± 0.21]"),
        *("NysAct", "<strong>91.00 ± 0.10</strong>", "Adam [x]", "<u>89.00</u> (n=2/3)"),
    ]


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])))
def test_markdown_shows_any_name_as_it_is(name):
    table = text_table("T", "optimizer", {"x": {f"a{name}": "1"}})
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(table))
    shown = re.findall(r"<td[^>]*>(.*?)</td>", html, re.DOTALL)[0]
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
    text = to_latex(text_table("T", "a", {"b": {"x": name}}))
    row = next(line for line in text.splitlines() if line.startswith("x & "))
    rest = row.removeprefix("x & ").removesuffix(r" \\")
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
