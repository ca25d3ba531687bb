"""Moved."""

from nysact.experiments.environment import SIDE_BY_SIDE, device_name, environment  # noqa: F401
