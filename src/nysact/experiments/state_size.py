"""Moved."""

from nysact.experiments.devices import state_bytes, tensors_in  # noqa: F401
