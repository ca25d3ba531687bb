"""Experiments with the library: data, models, training, and the ``nysact`` command.

Needs the extra ``experiments``: ``pip install "nysact[experiments]"``. Nothing is imported
before it is used, so that the command can name the extra where it is missing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nysact.experiments.comparison import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    """Import ``compare`` when it is used."""
    if name == "compare":
        from nysact.experiments.comparison import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
