"""The configuration of a run: checked types, no unknown names, values by dotted names."""

from nysact.experiments.config.run import OWN, Config, Schedule, Value

__all__ = ["OWN", "Config", "Schedule", "Value"]
