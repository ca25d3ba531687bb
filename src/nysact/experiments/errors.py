"""The error that a user of the experiments can mend."""

import difflib
from collections.abc import Iterable


class ExperimentError(Exception):
    """A bad option or bad data; the message names the value, what was expected, and a remedy."""


class RunningElsewhereError(ExperimentError):
    """Another process holds the same run."""


def unknown(name: str, names: Iterable[str]) -> str:
    """Write that a name is unknown, which is the nearest, and which there are."""
    names = list(names)
    folded = {other.lower(): other for other in names}
    nearest = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.0)
    hint = f"the nearest is {folded[nearest[0]]!r}; " if nearest else ""
    return f"{name!r}: {hint}expected one of {', '.join(names)}"
