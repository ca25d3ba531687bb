"""A table of results, before it is known where it will be shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum


class Mark(Enum):
    """How a cell stands out in its column."""

    NONE = "none"
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True)
class Cell:
    """One result.

    Args:
        text: The number, such as ``92.80 ± 0.21``, or a dash where there is none.
        mark: Whether it is the best or the second best of its column.
        note: What the reader must know of it, such as ``n=2/3``.
        paper: The number that the paper has in this place.
    """

    text: str
    mark: Mark = Mark.NONE
    note: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Table:
    """A table of results.

    Args:
        title: What it shows.
        headings: One for each column, that of the row names included.
        rows: A name and its cells each.
        notes: How to read it, a sentence each.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = field(default_factory=tuple)


def marked(column: Sequence[Cell], values: Sequence[float | None], *, higher: bool) -> list[Cell]:
    """Mark the best and the second best cells of a column; equal values share a mark.

    Args:
        column: The cells.
        values: The value of each as it is shown, ``None`` where it does not compete.
        higher: Whether higher is better.

    Returns:
        The cells, marked; a column in which fewer than two compete is left as it is.
    """
    ranks = sorted({value for value in values if value is not None}, reverse=higher)
    if sum(value is not None for value in values) < 2:
        return list(column)
    marks = dict(zip(ranks, (Mark.BEST, Mark.SECOND), strict=False))
    return [
        cell if value is None else replace(cell, mark=marks.get(value, Mark.NONE))
        for cell, value in zip(column, values, strict=True)
    ]
