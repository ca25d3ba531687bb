"""Results as tables, in Markdown, in LaTeX and on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table as TerminalTable
from rich.text import Text

from nysact.experiments.formatting import describe_settings, number, slug
from nysact.experiments.metrics import Metric, Target
from nysact.experiments.report.results import Results
from nysact.experiments.report.style import label_of


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


# Row to column to the number in the paper, as it is printed there.
Paper = Mapping[str, Mapping[str, str]]
Frame = pd.DataFrame
Columns = Mapping[str, pd.Series]
Times = tuple[pd.Series, int, bool]  # values, digits, and whether they are ranked

SPREAD = "Mean ± sample standard deviation over the seeds."
RANKS = "Best bold, second best underlined; cells with missing seeds (n) are not ranked."
PAPER = "In square brackets: the paper's number."
SIDE_BY_SIDE = (
    "Runs that trained side by side, as some of these may have, slow each other down: nysact bench "
    "measures time."
)
COSTS = {"mean_step_seconds": "time", "peak_memory": "memory"}
COSTS |= {"optimizer_state_bytes": "optimizer state"}
HOUR = 3600


def metric_table(results: Results, metric: Metric, paper: Paper, *, at: str = "final") -> Table:
    """Compare a metric: rows of optimizers, columns of what is trained."""
    plain = results.plain
    summary = plain.summary(plain.measured(metric, at))
    cells = partial(result_cells, digits=metric.digits, higher=metric.higher)
    columns = {
        column: cells(lines_of(plain, summary, column), paper=printed(paper, column))
        for column in plain.columns
    }
    return assembled(f"{at.capitalize()} {metric.title}", plain, columns)


def ratio_table(results: Results, reference: str, paper: Paper) -> Table:
    """Compare time and memory relative to the reference with the same seed on the same device."""
    plain = results.plain
    reference = reference_row(plain, reference)
    summaries = [plain.summary(relative(plain.runs, cost, reference)) for cost in COSTS]
    columns = {}
    for column in plain.columns:
        for part, (name, summary) in enumerate(zip(COSTS.values(), summaries, strict=True)):
            lines = lines_of(plain, summary, column)
            # Peak memory is measured on GPUs only.
            if lines["n"].drop(reference, errors="ignore").any():
                cells = ratio_cells(lines, reference, printed(paper, column, part))
                columns[f"{column}: {name}"] = cells
    note = (
        f"Relative to {reference} with the same seed on the same device: mean time of a training "
        "step, peak memory of the device, bytes of the optimizer's tensors."
    )
    notes = [note, *side_by_side(plain)]
    return assembled(f"Costs relative to {reference}", plain, columns, notes)


def relative(runs: pd.DataFrame, cost: str, reference: str) -> pd.Series:
    """Divide each run's cost by that of the reference run of its column, seed and device."""
    keys = ["column", "seed", "device"]
    unit = runs[runs["row"] == reference].set_index(keys)[cost].astype(float)
    unit = unit[(unit > 0) & ~unit.index.duplicated()]
    return runs[cost].astype(float) / runs.join(unit.rename("unit"), on=keys)["unit"]


def ratio_cells(lines: pd.DataFrame, reference: str, paper: Mapping[str, str]) -> pd.Series:
    """Write ratios; the reference is the unit and is not ranked."""
    others = result_cells(lines.drop(reference), 2, higher=False, paper=paper)
    return pd.concat([pd.Series({reference: Cell("1")}, dtype=object), others]).loc[lines.index]


def reference_row(results: Results, reference: str) -> str:
    """Find the reference, or the first row of it with other settings."""
    rows = [row for row in results.rows if row.partition(" (")[0] == reference]
    return reference if reference in results.rows or not rows else rows[0]


def target_table(results: Results, metric: Metric, target: Target, paper: Paper) -> Table:
    """Compare the epochs or steps and the training time until a target is reached."""
    plain = results.plain
    columns = {}
    for column in plain.columns:
        value = target_value(plain, column, metric, target)
        if value is None:
            continue
        mine = plain.where(plain.runs["column"] == column)
        for part, (name, (values, digits, ranked)) in enumerate(times(mine, metric, value).items()):
            columns[f"{column} to {metric.text(value)}: {name}"] = result_cells(
                lines_of(plain, mine.summary(values), column), digits, higher=False,
                paper=printed(paper, column, part), ranked=ranked,
            )  # fmt: skip
    note = "Time of the training steps alone; n counts the seeds that reached the target."
    notes = [note, *side_by_side(plain)]
    return assembled(f"Until a {metric.label} is reached", plain, columns, notes)


def target_value(results: Results, column: str, metric: Metric, target: Target) -> float | None:
    """Work a target out for a column; ``None`` if its reference has no finished run there."""
    if target.value is not None:
        return target.value
    row = reference_row(results, target.row)
    summary = results.summary(results.measured(metric, "best"))
    found = summary[(summary["column"] == column) & (summary["row"] == row) & (summary["n"] > 0)]
    if found.empty:
        return None
    best = float(found["mean"].iloc[0])
    return best * target.share if metric.higher else best / target.share


def first_reached(results: Results, metric: Metric, target: float) -> pd.DataFrame:
    """Give step, epoch and seconds of the first evaluation of each run that reaches a target."""
    mine = results.curves(metric)
    values = mine["value"]
    good = mine[values >= target] if metric.higher else mine[values <= target]
    return good.drop_duplicates("run").set_index("run")[["step", "epoch", "seconds"]]


def times(results: Results, metric: Metric, target: float) -> dict[str, Times]:
    """Give progress and time of the runs of a column until a target, in hours if they take some."""
    reached = first_reached(results, metric, target)
    progress = str(results.runs["progress"].iloc[0])
    long = results.values["seconds"].max() >= 2 * HOUR
    seconds = (reached["seconds"] / HOUR, 2) if long else (reached["seconds"], 1)
    # Times on different devices cannot be compared.
    comparable = results.runs["device"].nunique() == 1
    return {
        f"{progress}s": (reached[progress], int(progress == "epoch"), True),
        "hours" if long else "seconds": (*seconds, comparable),
    }


def varied_tables(results: Results, metric: Metric) -> dict[str, Table]:
    """Compare a metric over each setting that varies alone, a table for each column and setting."""
    tables = {}
    summary = results.summary(results.measured(metric))
    for (column, name), settings in results.single_sweeps().items():
        mine = results.where(
            (results.runs["column"] == column) & results.runs["setting"].isin(settings)
        )
        columns = {
            number(mine.sweeps[setting][name]): result_cells(
                lines_of(mine, summary, column, setting), metric.digits, higher=metric.higher
            )
            for setting in settings
        }
        title = f"Final {metric.title} by {label_of(name)}: {column}"
        tables[slug(f"{column} {name.rpartition('.')[2]}")] = assembled(title, mine, columns)
    return tables


def trial_table(results: Results, metric: Metric, limit: int) -> Table:
    """List the best settings of a search, the best first, each ranked in its own column."""
    trials = results.where(results.runs["setting"] != "")
    summary = trials.summary(trials.measured(metric))
    cells = [
        result_cells(lines, metric.digits, higher=metric.higher)
        for _, lines in summary.groupby("column", observed=True)
    ]
    summary["cell"] = pd.concat(cells)
    best = summary.sort_values("mean", ascending=not metric.higher, kind="stable").head(limit)
    frame = pd.DataFrame(
        {
            "column": best["column"].astype(str).map(Cell),
            "setting": [Cell(in_words(trials.sweeps[one])) for one in best["setting"]],
            f"final {metric.title}": best["cell"],
        }
    )
    frame.index = pd.Index(best["row"].astype(str), name="optimizer")
    title = f"The best {len(best)} of {len(summary)} settings"
    return Table(title, frame, [SPREAD, RANKS])


def in_words(sweep: Mapping[str, Any]) -> str:
    """Write the varied settings, such as ``damping 1, lr 0.1``."""
    return describe_settings(dict(sorted(sweep.items())))


def lines_of(
    results: Results, summary: pd.DataFrame, column: str, setting: str = ""
) -> pd.DataFrame:
    """Pick a column of a summary, a line for each row; where there are no runs, n is 0."""
    mine = summary[summary["column"] == column]
    found = mine[mine["setting"] == setting].set_index("row").reindex(results.rows)
    return found.fillna({"n": 0, "failed": 0, "expected": mine["expected"].max()})


def printed(paper: Paper, column: str, part: int | None = None) -> dict[str, str]:
    """Look up the paper's number for each row of a column, or a part of it between commas."""
    found = {row: cells[column] for row, cells in paper.items() if column in cells}
    spaced = {row: " ± ".join(map(str.strip, text.split("±"))) for row, text in found.items()}
    if part is None:
        return spaced
    parts = {row: text.split(",") for row, text in spaced.items()}
    return {row: texts[part].strip() for row, texts in parts.items() if part < len(texts)}


def side_by_side(results: Results) -> list[str]:
    """Say that times are no measurement, unless all runs are known to have trained alone."""
    alone = all(run.environment.get("side_by_side") == 1 for run in results.runs["stored"])
    return [] if alone else [SIDE_BY_SIDE]


def assembled(
    title: str, results: Results, columns: Mapping[str, pd.Series], notes: Sequence[str] = ()
) -> Table:
    """Put columns of cells together, with the notes that they need."""
    frame = pd.DataFrame(columns, index=pd.Index(results.rows, name="optimizer"), dtype=object)
    has_paper = any(cell.paper for cell in frame.to_numpy().flat)
    return Table(title, frame, [SPREAD, RANKS, *([PAPER] if has_paper else []), *notes])
