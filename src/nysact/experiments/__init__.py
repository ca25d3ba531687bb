"""Experiments with the library: data, models, training, and the ``nysact`` command.

Needs the extra ``experiments``: ``pip install "nysact[experiments]"``. Nothing is imported
before it is used, so that the command can name the extra where it is missing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nysact.experiments.comparison import compare
    from nysact.experiments.sweeps.tuning import Tuning

__all__ = ["Tuning", "compare"]


def __getattr__(name: str) -> Any:
    """Import ``compare`` and what it takes when they are used."""
    if name in __all__:
        from nysact.experiments import comparison

        return getattr(comparison, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
