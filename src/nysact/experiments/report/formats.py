"""A table of results in Markdown, in LaTeX and on the terminal."""

from rich import box
from rich.console import Group, JustifyMethod
from rich.table import Table as TerminalTable
from rich.text import Text

from nysact.experiments.markdown import markdown
from nysact.experiments.report.table import Cell, Mark, Table

# What LaTeX reads as a command, and how to write it so that it is printed.
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "β": r"$\beta$",
    "₂": "$_2$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "ö": r"\"{o}",
}
LATEX = str.maketrans(LATEX_SPECIAL)
# Characters with a meaning inside a cell of a Markdown table.
MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>|#"} | {"\n": " "})


def to_markdown(table: Table) -> str:
    """Write a table in Markdown.

    Args:
        table: The table.

    Returns:
        Lines that end in a newline: the title, the table, the notes.
    """
    headings = [heading.translate(MARKDOWN) for heading in table.headings]
    rows = [[name.translate(MARKDOWN), *map(markdown_cell, cells)] for name, cells in table.rows]
    parts = [f"**{table.title.translate(MARKDOWN)}**", markdown(headings, rows)]
    if table.notes:
        parts.append(" ".join(note.translate(MARKDOWN) for note in table.notes))
    return "\n\n".join(parts) + "\n"


def markdown_cell(cell: Cell) -> str:
    """Write a cell: best bold, second best underlined, the paper's number in brackets."""
    text = cell.text.translate(MARKDOWN)
    shown = {Mark.BEST: f"**{text}**", Mark.SECOND: f"<u>{text}</u>"}.get(cell.mark, text)
    note = f" ({cell.note.translate(MARKDOWN)})" if cell.note else ""
    paper = f" \\[{cell.paper.translate(MARKDOWN)}\\]" if cell.paper else ""
    return shown + note + paper


def to_latex(table: Table) -> str:
    """Write a table in LaTeX, for a document that loads ``booktabs``.

    Args:
        table: The table.

    Returns:
        A ``table`` environment.
    """
    columns = "l" + "r" * (len(table.headings) - 1)
    caption = " ".join([f"{table.title}.", *table.notes])
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption.translate(LATEX)}}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        latex_line([heading.translate(LATEX) for heading in table.headings]),
        r"    \midrule",
        *(latex_line([name.translate(LATEX), *map(latex_cell, c)]) for name, c in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_line(cells: list[str]) -> str:
    """Write one line of a table."""
    return f"    {' & '.join(cells)} " + r"\\"


def latex_cell(cell: Cell) -> str:
    """Write a cell: best bold, second best underlined, the paper's number in brackets."""
    text = cell.text.translate(LATEX)
    command = {Mark.BEST: r"\textbf", Mark.SECOND: r"\underline"}.get(cell.mark)
    shown = f"{command}{{{text}}}" if command else text
    note = f" ({cell.note.translate(LATEX)})" if cell.note else ""
    paper = f" {f'[{cell.paper}]'.translate(LATEX)}" if cell.paper else ""
    return shown + note + paper


def to_terminal(table: Table) -> Group:
    """Lay a table out for the terminal.

    Args:
        table: The table.

    Returns:
        What a console of rich prints.
    """
    shown = TerminalTable(
        title=Text(table.title),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
    )
    for index, heading in enumerate(table.headings):
        justify: JustifyMethod = "left" if index == 0 else "right"
        # A cell that is too wide is broken, never cut short.
        shown.add_column(Text(heading), justify=justify, no_wrap=index == 0, overflow="fold")
    for name, cells in table.rows:
        shown.add_row(Text(name), *map(terminal_cell, cells))
    return Group(shown, Text(" ".join(table.notes) + "\n", style="dim"))


def terminal_cell(cell: Cell) -> Text:
    """Style a cell: best bold, second best underlined, the rest of it dim below."""
    style = {Mark.BEST: "bold", Mark.SECOND: "underline"}.get(cell.mark, "")
    text = Text().append(cell.text, style=style)
    if cell.note:
        text.append(f" ({cell.note})", style="dim")
    if cell.paper:
        text.append(f"\n[{cell.paper}]", style="dim")
    return text
