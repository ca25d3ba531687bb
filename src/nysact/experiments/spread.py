"""Moved."""

from nysact.experiments.formatting import mean_and_std as mean_and_spread  # noqa: F401
