"""Moved."""

from nysact.experiments.devices import cpu_threads  # noqa: F401
