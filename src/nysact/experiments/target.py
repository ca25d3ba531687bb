"""A target quality: a value, or a share of what a reference optimizer reaches."""

import re
from dataclasses import dataclass

from nysact.experiments.errors import ExperimentError

SHARE = re.compile(r"(?P<share>[\d.]+)\s*%\s+of\s+(?P<row>.+)")


@dataclass(frozen=True)
class Target:
    """The quality that runs are to reach."""

    value: float | None = None  # None if it is relative to a reference
    share: float = 1.0  # share of the reference's best value; where lower is better, its divisor
    row: str = ""  # the reference


def parse_target(text: str) -> Target:
    """Read a target such as ``72`` or ``90% of SGD``."""
    share = SHARE.fullmatch(text.strip())
    try:
        if share:
            return Target(share=float(share["share"]) / 100, row=share["row"].strip())
        return Target(value=float(text))
    except ValueError as error:
        raise ExperimentError(
            f"target {text!r}: expected a number such as 72, or a share of a row's best value, "
            "such as '90% of SGD'"
        ) from error
