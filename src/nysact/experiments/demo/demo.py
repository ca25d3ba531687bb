"""Moved."""

from nysact.experiments.devices import chosen_device  # noqa: F401
from nysact.experiments.files import check_writable


def make_writable(folder):  # type: ignore  # noqa: D103
    check_writable(folder, "--output")
