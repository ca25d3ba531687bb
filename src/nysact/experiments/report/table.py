"""A table of results, in Markdown, in LaTeX and on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table as TerminalTable
from rich.text import Text


@dataclass(frozen=True)
class Cell:
    """One result, such as ``92.80 ± 0.21``."""

    text: str
    mark: str = ""  # "best" or "second" of its column
    note: str = ""  # a remark, such as n=2/3
    paper: str = ""  # the paper's number


@dataclass(frozen=True)
class Table:
    """A frame of cells, with row names as its index, and sentences on how to read it."""

    title: str
    frame: pd.DataFrame
    notes: Sequence[str] = ()


def text_table(title: str, heading: str, columns: Mapping[str, Mapping[str, str]]) -> Table:
    """Make a table of plain texts, by heading and row name."""
    frame = pd.DataFrame(columns).map(Cell)
    return Table(title, frame.rename_axis(heading))


def result_cells(
    summary: pd.DataFrame,
    digits: int,
    *,
    higher: bool,
    paper: Mapping[str, str] | None = None,
    ranked: bool = True,
) -> pd.Series:
    """Write mean ± deviation of each line, ranked; an incomplete cell says so and has no rank."""
    shown = summary["mean"].round(digits).where(summary["n"] >= summary["expected"])
    marks = rank_marks(shown, higher=higher) if ranked else pd.Series("", summary.index)
    return pd.Series(
        [
            Cell(text_of(line, digits), mark, note_of(line), (paper or {}).get(str(name), ""))
            for (name, line), mark in zip(summary.iterrows(), marks, strict=True)
        ],
        summary.index,
        dtype=object,
    )


def rank_marks(values: pd.Series, *, higher: bool) -> pd.Series:
    """Mark the best and second best; equal values share a mark, and one alone has none."""
    marks = {1.0: "best", 2.0: "second"} if values.count() > 1 else {}
    return values.rank(method="dense", ascending=not higher).map(lambda rank: marks.get(rank, ""))


def text_of(line: pd.Series, digits: int) -> str:
    """Write mean and deviation, or the mean alone of a single value."""
    if not line["n"]:
        return "failed" if line["failed"] else "–"
    mean = f"{line['mean']:.{digits}f}"
    return mean if line["n"] == 1 else f"{mean} ± {line['std']:.{digits}f}"


def note_of(line: pd.Series) -> str:
    """Say how many seeds are missing, such as ``n=2/3``; nothing if none is."""
    missing = line["n"] < line["expected"]
    return f"n={line['n']:.0f}/{line['expected']:.0f}" if missing else ""


# Characters that LaTeX does not print as they are.
LATEX_SPECIAL = {
    **{char: f"\\{char}" for char in "{}$&#%_"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "]": "{]}", "–": "--"},
    **{"±": r"$\pm$", "×": r"$\times$", "β": r"$\beta$", "₂": "$_2$", "τ": r"$\tau$"},
    **{"ρ": r"$\rho$", "ö": r"\"{o}"},
}
LATEX = str.maketrans(LATEX_SPECIAL)
# Characters with a meaning inside a cell of a Markdown table.
MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>|#"} | {"\n": " "})
WRAPPED = {
    "markdown": {"best": "**{}**", "second": "<u>{}</u>"},
    "latex": {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"},
}
ESCAPES = {"markdown": MARKDOWN, "latex": LATEX}


def to_markdown(table: Table) -> str:
    """Write the title, the table and the notes in Markdown."""
    frame = texts(table, "markdown")
    align = ("left", *["right"] * frame.shape[1])
    grid = frame.to_markdown(tablefmt="pipe", disable_numparse=True, colalign=align)
    notes = " ".join(table.notes).translate(MARKDOWN)
    parts: list[str] = [f"**{table.title.translate(MARKDOWN)}**", grid, notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(table: Table) -> str:
    """Write a LaTeX ``table`` environment, for a document that loads ``booktabs``."""
    frame = texts(table, "latex").reset_index()
    caption = " ".join([f"{table.title}.", *table.notes]).translate(LATEX)
    columns = "l" + "r" * (frame.shape[1] - 1)
    text: str = frame.style.hide(axis="index").to_latex(
        hrules=True, column_format=columns, position_float="centering", caption=caption
    )
    return text


def texts(table: Table, form: str) -> pd.DataFrame:
    """Write all cells, headings and row names of a table in a format."""
    frame = table.frame.map(cell_text, form=form)
    frame.index = frame.index.map(lambda name: name.translate(ESCAPES[form]))
    frame.columns = [str(heading).translate(ESCAPES[form]) for heading in frame.columns]
    return frame


def cell_text(cell: Cell, form: str) -> str:
    """Write a cell: best bold, second best underlined, the paper's number in brackets."""
    escape = ESCAPES[form]
    text = WRAPPED[form].get(cell.mark, "{}").format(cell.text.translate(escape))
    note = f" ({cell.note})".translate(escape) if cell.note else ""
    paper = f" [{cell.paper}]".translate(escape) if cell.paper else ""
    return text + note + paper


def to_terminal(table: Table) -> Group:
    """Lay a table out for the terminal; a cell that is too wide is broken, never cut short."""
    shown = TerminalTable(
        title=Text(table.title), box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left"
    )
    shown.add_column(Text(str(table.frame.index.name)), no_wrap=True)
    for heading in table.frame.columns:
        shown.add_column(Text(heading), justify="right", overflow="fold")
    for name, *cells in table.frame.itertuples(name=None):
        shown.add_row(Text(name), *map(terminal_cell, cells))
    return Group(shown, Text(" ".join(table.notes) + "\n", style="dim"))


def terminal_cell(cell: Cell) -> Text:
    """Style a cell: best bold, second best underlined, the rest dim."""
    style = {"best": "bold", "second": "underline"}.get(cell.mark, "")
    text = Text().append(cell.text, style=style)
    if cell.note:
        text.append(f" ({cell.note})", style="dim")
    if cell.paper:
        text.append(f"\n[{cell.paper}]", style="dim")
    return text
