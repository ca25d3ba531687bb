"""The target of a time-to-target table: a value, or a share of a reference row's best value."""

import re
from dataclasses import dataclass

from nysact.experiments.errors import ExperimentError

SHARE = re.compile(r"(?P<share>[\d.]+)\s*%\s+of\s+(?P<row>.+)")


@dataclass(frozen=True)
class Target:
    """A ``value``, or a ``share`` of the best value of a reference ``row``."""

    value: float | None = None
    share: float = 1.0
    row: str = ""


def parse_target(text: str) -> Target:
    """Read a number such as ``72``, or a share such as ``90% of SGD``."""
    share = SHARE.fullmatch(text.strip())
    try:
        if share:
            return Target(share=float(share["share"]) / 100, row=share["row"].strip())
        return Target(value=float(text))
    except ValueError as error:
        raise ExperimentError(
            f"target {text!r}: expected a number such as 72, or a share of the best value of a "
            "row, such as '90% of SGD'"
        ) from error
