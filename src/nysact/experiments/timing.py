"""Moved."""

from nysact.experiments.clock import WINDOW  # noqa: F401
from nysact.experiments.devices import synchronize  # noqa: F401
