"""A table of results: cells with the marks of the best two, before its format is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd


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
