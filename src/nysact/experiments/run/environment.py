"""Moved to :mod:`nysact.experiments.environment`."""

from nysact.experiments.environment import SIDE_BY_SIDE, device_name, environment

__all__ = ["SIDE_BY_SIDE", "device_name", "environment"]
