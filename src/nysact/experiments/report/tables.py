"""Results as tables, in Markdown, in LaTeX and on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
    return Table(title, pd.DataFrame(columns).map(Cell).rename_axis(heading))


class Format(NamedTuple):
    """How cells are written; ``escapes`` are the characters that have a meaning there."""

    escapes: dict[str, str | int | None]
    best: str
    second: str
    note: str
    paper: str

    def escape(self, text: object) -> str:
        """Write a text so that it is shown as it is."""
        return str(text).translate(str.maketrans(self.escapes))

    def cell(self, cell: Cell) -> str:
        """Write a cell: best bold, second best underlined, the paper's number in brackets."""
        wrapped = {"best": self.best, "second": self.second}.get(cell.mark, "{}")
        text = wrapped.format(self.escape(cell.text))
        note = self.note.format(self.escape(cell.note)) if cell.note else ""
        return text + note + (self.paper.format(self.escape(cell.paper)) if cell.paper else "")

    def frame(self, table: Table) -> pd.DataFrame:
        """Write all cells, headings and row names."""
        return table.frame.map(self.cell).rename(index=self.escape, columns=self.escape)


LATEX_SPECIAL: dict[str, str | int | None] = {
    **{char: f"\\{char}" for char in "{}$&#%_"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "]": "{]}", "–": "--"},
    **{"±": r"$\pm$", "×": r"$\times$", "β": r"$\beta$", "₂": "$_2$", "τ": r"$\tau$"},
    **{"ρ": r"$\rho$", "ö": r"\"{o}"},
}
IN_MARKDOWN: dict[str, str | int | None] = {
    **{char: f"\\{char}" for char in "\\`*_{}[]<>|#"},
    "\n": " ",
}
LATEX = Format(LATEX_SPECIAL, r"\textbf{{{}}}", r"\underline{{{}}}", " ({})", " {{[}}{}{{]}}")
MARKDOWN = Format(IN_MARKDOWN, "**{}**", "<u>{}</u>", " ({})", r" \[{}\]")
TERMINAL = Format(
    {"[": "\\["}, "[bold]{}[/]", "[underline]{}[/]", "[dim] ({})[/]", "\n[dim]\\[{}][/]"
)


def to_markdown(table: Table) -> str:
    """Write the title, the table and the notes in Markdown."""
    align = ("left", *["right"] * table.frame.shape[1])
    grid = MARKDOWN.frame(table).to_markdown(tablefmt="pipe", disable_numparse=True, colalign=align)
    parts = [f"**{MARKDOWN.escape(table.title)}**", grid, MARKDOWN.escape(" ".join(table.notes))]
    return "\n\n".join(filter(None, parts)) + "\n"


def to_latex(table: Table) -> str:
    """Write a LaTeX ``table`` environment, for a document that loads ``booktabs``."""
    frame = LATEX.frame(table).reset_index()
    caption = LATEX.escape(" ".join([f"{table.title}.", *table.notes]))
    text: str = frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format="l" + "r" * table.frame.shape[1],
        position_float="centering",
        caption=caption,
    )
    return text


def to_terminal(table: Table) -> Group:
    """Lay a table out for the terminal; a cell that is too wide is broken, never cut short."""
    shown = TerminalTable(
        title=Text(table.title), box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left"
    )
    frame = TERMINAL.frame(table)
    shown.add_column(str(frame.index.name), no_wrap=True)
    for heading in frame.columns:
        shown.add_column(heading, justify="right", overflow="fold")
    for cells in frame.itertuples(name=None):
        shown.add_row(*cells)
    return Group(shown, Text(" ".join(table.notes) + "\n", style="dim"))


# Row to column to the number in the paper, as it is printed there.
Paper = Mapping[str, Mapping[str, str]]

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


@dataclass(frozen=True)
class Measure:
    """A column of a table: a number of each run, and how it is written."""

    column: str  # of the results
    values: pd.Series
    digits: int
    higher: bool = False  # whether higher is better
    ranked: bool = True
    setting: str = ""
    part: int | None = None  # of the paper's numbers between commas
    unit: str = ""  # the row that the values are relative to, which has no rank

    def cells(self, results: Results, paper: Paper) -> pd.Series:
        """Write a cell for each row; where there are no runs, n is 0."""
        summary = results.summary(self.values)
        mine = summary[summary["column"] == self.column]
        lines = mine[mine["setting"] == self.setting].set_index("row").reindex(results.rows)
        lines = lines.fillna({"n": 0, "failed": 0, "expected": mine["expected"].max()})
        others = lines.drop(self.unit, errors="ignore")
        found = result_cells(others, self.digits, higher=self.higher, ranked=self.ranked)
        papers = {row: cells.get(self.column, "") for row, cells in paper.items()}
        found = pd.Series(
            [replace(c, paper=self.printed(papers.get(str(row), ""))) for row, c in found.items()],
            found.index,
            dtype=object,
        )
        return found.reindex(lines.index, fill_value=Cell("1"))

    def printed(self, paper: str) -> str:
        """Write the paper's number, or its part between commas."""
        spaced = " ± ".join(map(str.strip, paper.split("±")))
        return spaced if self.part is None else [*spaced.split(","), "", ""][self.part].strip()


def compared(
    title: str,
    results: Results,
    measures: Mapping[str, Measure],
    paper: Paper,
    notes: Sequence[str] = (),
) -> Table:
    """Lay measures out as columns by their headings, with the notes that they need."""
    columns = {heading: measure.cells(results, paper) for heading, measure in measures.items()}
    frame = pd.DataFrame(columns, index=pd.Index(results.rows, name="optimizer"), dtype=object)
    has_paper = any(cell.paper for cell in frame.to_numpy().flat)
    return Table(title, frame, [SPREAD, RANKS, *([PAPER] if has_paper else []), *notes])


def result_cells(
    summary: pd.DataFrame, digits: int, *, higher: bool, ranked: bool = True
) -> pd.Series:
    """Write mean ± deviation of each line, ranked; an incomplete cell says so and has no rank."""
    shown = summary["mean"].round(digits).where(summary["n"] >= summary["expected"])
    marks = rank_marks(shown, higher=higher) if ranked else pd.Series("", summary.index)
    cells = [
        Cell(text_of(line, digits), mark, note_of(line))
        for (_, line), mark in zip(summary.iterrows(), marks, strict=True)
    ]
    return pd.Series(cells, summary.index, dtype=object)


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


def metric_table(results: Results, metric: Metric, paper: Paper, *, at: str = "final") -> Table:
    """Compare a metric: rows of optimizers, columns of what is trained."""
    plain = results.plain
    values = plain.measured(metric, at)
    measures = {c: Measure(c, values, metric.digits, metric.higher) for c in plain.columns}
    return compared(f"{at.capitalize()} {metric.title}", plain, measures, paper)


def ratio_table(results: Results, reference: str, paper: Paper) -> Table:
    """Compare time and memory relative to the reference with the same seed on the same device."""
    plain = results.plain
    runs, unit = plain.runs, reference_row(plain, reference)
    ratios = {name: relative(runs, cost, unit) for cost, name in COSTS.items()}
    measures = {
        f"{column}: {name}": Measure(column, values, 2, part=part, unit=unit)
        for column in plain.columns
        for part, (name, values) in enumerate(ratios.items())
        # Peak memory is measured on GPUs only.
        if values[(runs["row"] != unit) & (runs["column"] == column)].notna().any()
    }
    note = (
        f"Relative to {unit} with the same seed on the same device: mean time of a training "
        "step, peak memory of the device, bytes of the optimizer's tensors."
    )
    notes = [note, *side_by_side(plain)]
    return compared(f"Costs relative to {unit}", plain, measures, paper, notes)


def relative(runs: pd.DataFrame, cost: str, reference: str) -> pd.Series:
    """Divide each run's cost by that of the reference run of its column, seed and device."""
    keys = ["column", "seed", "device"]
    unit = runs[runs["row"] == reference].set_index(keys)[cost].astype(float)
    unit = unit[(unit > 0) & ~unit.index.duplicated()]
    return runs[cost].astype(float) / runs.join(unit.rename("unit"), on=keys)["unit"]


def reference_row(results: Results, reference: str) -> str:
    """Find the reference, or the first row of it with other settings."""
    rows = [row for row in results.rows if row.partition(" (")[0] == reference]
    return reference if reference in results.rows or not rows else rows[0]


def target_table(results: Results, metric: Metric, target: Target, paper: Paper) -> Table:
    """Compare the epochs or steps and the training time until a target is reached."""
    plain = results.plain
    measures: dict[str, Measure] = {}
    for column in plain.columns:
        value = target_value(plain, column, metric, target)
        if value is not None:
            mine = plain.where(plain.runs["column"] == column)
            goal = f"{column} to {metric.text(value)}"
            times = times_to(mine, column, metric, value)
            measures |= {f"{goal}: {name}": measure for name, measure in times.items()}
    note = "Time of the training steps alone; n counts the seeds that reached the target."
    notes = [note, *side_by_side(plain)]
    return compared(f"Until a {metric.label} is reached", plain, measures, paper, notes)


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
    good = mine[mine["value"] >= target] if metric.higher else mine[mine["value"] <= target]
    return good.drop_duplicates("run").set_index("run")[["step", "epoch", "seconds"]]


def times_to(results: Results, column: str, metric: Metric, target: float) -> dict[str, Measure]:
    """Measure progress and time of the runs of a column to a target, in hours if they take some."""
    reached, progress = first_reached(results, metric, target), results.runs["progress"].iloc[0]
    long = results.values["seconds"].max() >= 2 * HOUR
    seconds = (reached["seconds"] / HOUR, 2) if long else (reached["seconds"], 1)
    # Times on different devices cannot be compared.
    comparable = results.runs["device"].nunique() == 1
    return {
        f"{progress}s": Measure(column, reached[progress], int(progress == "epoch"), part=0),
        "hours" if long else "seconds": Measure(column, *seconds, ranked=comparable, part=1),
    }


def varied_tables(results: Results, metric: Metric) -> dict[str, Table]:
    """Compare a metric over each setting that varies alone, a table for each column and setting."""
    tables, values, runs = {}, results.measured(metric), results.runs
    for (column, name), settings in results.single_sweeps().items():
        mine = results.where((runs["column"] == column) & runs["setting"].isin(settings))
        measures = {
            number(mine.sweeps[setting][name]): Measure(
                column, values, metric.digits, metric.higher, setting=setting
            )
            for setting in settings
        }
        title = f"Final {metric.title} by {label_of(name)}: {column}"
        tables[slug(f"{column} {name.rpartition('.')[2]}")] = compared(title, mine, measures, {})
    return tables


def trial_table(results: Results, metric: Metric, limit: int) -> Table:
    """List the best settings of a search, the best first, each ranked in its own column."""
    trials = results.where(results.runs["setting"] != "")
    summary = trials.summary(trials.measured(metric))
    groups = summary.groupby("column", observed=True)
    cells = [result_cells(of, metric.digits, higher=metric.higher) for _, of in groups]
    summary["cell"] = pd.concat(cells)
    best = summary.sort_values("mean", ascending=not metric.higher, kind="stable").head(limit)
    columns = {
        "column": best["column"].astype(str).map(Cell),
        "setting": [Cell(in_words(trials.sweeps[one])) for one in best["setting"]],
        f"final {metric.title}": best["cell"],
    }
    index = pd.Index(best["row"].astype(str), name="optimizer")
    title = f"The best {len(best)} of {len(summary)} settings"
    return Table(title, pd.DataFrame(columns).set_index(index), [SPREAD, RANKS])


def in_words(sweep: Mapping[str, Any]) -> str:
    """Write the varied settings, such as ``damping 1, lr 0.1``."""
    return describe_settings(dict(sorted(sweep.items())))


def side_by_side(results: Results) -> list[str]:
    """Say that times are no measurement, unless all runs are known to have trained alone."""
    alone = all(run.environment.get("side_by_side") == 1 for run in results.runs["stored"])
    return [] if alone else [SIDE_BY_SIDE]
