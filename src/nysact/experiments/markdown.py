"""Moved."""

from nysact.experiments.formatting import markdown  # noqa: F401
