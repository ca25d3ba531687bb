"""Experiments with the library: data, models, training, and the ``nysact`` command.

Needs the extra ``experiments``: ``pip install "nysact[experiments]"``. Nothing is imported
here before it is asked for, so that the command can say so itself where the extra is missing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nysact.experiments.own_data import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    """Import what is asked for.

    Args:
        name: Its name.

    Returns:
        The object.

    Raises:
        AttributeError: If there is no such name.
    """
    if name == "compare":
        from nysact.experiments.own_data import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
