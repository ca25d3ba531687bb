"""Numbers, settings, durations, labels and Markdown tables as text."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any


def slug(label: str) -> str:
    """Turn a label into part of a file name."""
    kept = "".join(char if char.isalnum() or char == "." else " " for char in label.lower())
    return "-".join(kept.split())


def number(value: Any) -> str:
    """Write a number as short as possible, and anything else as it is."""
    if isinstance(value, tuple | list):
        return " and ".join(map(number, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower()
    power = f"{value:.0e}".replace("e-0", "e-")
    return power if 0 < value < 0.01 and float(power) == value else f"{value:g}"


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Write settings out, such as ``momentum 0.9, weight decay 5e-4``, without dotted paths."""
    return ", ".join(
        f"{name.rpartition('.')[2].replace('_', ' ')} {number(value)}"
        for name, value in settings.items()
    )


def duration(seconds: float) -> str:
    """Write a duration such as ``2 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value); infinite values carry over."""
    mean = fmean(values)
    squares = sum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0


def mean_std_text(values: Sequence[float], digits: int) -> str:
    """Write ``mean ± standard deviation``, the mean alone for one value, a dash for none."""
    if not values:
        return "–"
    mean, std = mean_and_std(values)
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if len(values) > 1 else "")


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table whose first column is text and whose others are numbers."""
    rules = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows))
