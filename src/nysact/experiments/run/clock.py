"""Moved."""

from nysact.experiments.devices import PEAK_MEMORY  # noqa: F401
