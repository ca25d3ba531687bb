"""Tables in Markdown."""

from collections.abc import Sequence


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table whose first column is text and whose others are numbers.

    Args:
        headings: One for each column.
        rows: The cells of each row.

    Returns:
        The table, without a line break at its end.
    """
    rules = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows))
