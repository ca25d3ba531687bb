"""Moved to :mod:`nysact.experiments.metrics`."""

from nysact.experiments.metrics import METRICS, Metric, metric_of

__all__ = ["METRICS", "Metric", "metric_of"]
