"""The values over which a sweep varies a setting, as they are written on the command line."""

import math
import random
from dataclasses import dataclass

from nysact.experiments.assignments import parse_value as parsed
from nysact.experiments.assignments import value_text as written
from nysact.experiments.config import Config, Value
from nysact.experiments.errors import ExperimentError


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Args:
        values: The values.
    """

    values: tuple[Value, ...]

    def draw(self, stream: random.Random) -> Value:
        """Draw a value."""
        return stream.choice(self.values)


@dataclass(frozen=True)
class Range:
    """A number between two.

    Args:
        low: The least.
        high: The greatest.
        log: Whether its logarithm is uniform.
        whole: Whether it is a whole number.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, stream: random.Random) -> Value:
        """Draw a number, to four digits if it is not whole."""
        if self.whole:
            return self.whole_number(stream)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = stream.uniform(low, high)
        rounded = float(f"{math.exp(drawn) if self.log else drawn:.4g}")
        return min(max(rounded, self.low), self.high)

    def whole_number(self, stream: random.Random) -> int:
        """Draw a whole number."""
        low, high = round(self.low), round(self.high)
        if not self.log:
            return stream.randint(low, high)
        # Each whole number has the share of the axis from itself to the next.
        power = stream.uniform(math.log(low), math.log(high + 1))
        return min(high, int(math.exp(power)))


Space = Choice | Range
HELP = "such as 0.03,0.1,0.3 or log:0.01:1 or uniform:0:0.9 or int:4:32 or logint:1:64"
KINDS = {
    # Whether it is logarithmic, and whether it is of whole numbers.
    "uniform": (False, False),
    "log": (True, False),
    "int": (False, True),
    "logint": (True, True),
}


def parse_space(text: str) -> tuple[str, Space]:
    """Read what a setting is varied over.

    Args:
        text: The setting's dotted name, ``=``, and values with commas between, or the kind of a
            range with its ends.

    Returns:
        The name and the values.

    Raises:
        ExperimentError: If it cannot be read.
    """
    name, equals, values = text.partition("=")
    kind, *ends = values.strip().split(":")
    if not equals or not name.strip() or not values.strip():
        raise ExperimentError(f"--vary {text}: expected NAME=VALUES, {HELP}")
    if not ends:
        return name.strip(), Choice(tuple(parsed(part.strip()) for part in values.split(",")))
    if kind not in KINDS or len(ends) != 2:
        raise ExperimentError(
            f"--vary {text}: expected a range {', '.join(f'{k}:LOW:HIGH' for k in KINDS)}, or "
            "values with commas between"
        )
    return name.strip(), parse_range(text, kind, ends)


def parse_range(text: str, kind: str, ends: list[str]) -> Range:
    """Read the ends of a range.

    Args:
        text: All that the user wrote.
        kind: A key of :data:`KINDS`.
        ends: The least and the greatest number.

    Returns:
        The range.

    Raises:
        ExperimentError: If they are no numbers or in the wrong order.
    """
    log, whole = KINDS[kind]
    try:
        low, high = (float(int(end)) if whole else float(end) for end in ends)
    except ValueError as error:
        kind_of = "whole numbers" if whole else "numbers"
        raise ExperimentError(f"--vary {text}: expected two {kind_of} after {kind}:") from error
    if not (low < high and math.isfinite(low) and math.isfinite(high)) or (log and low <= 0):
        above = " above 0" if log else ""
        raise ExperimentError(f"--vary {text}: expected a lower and then a higher end{above}")
    return Range(low, high, log, whole)


def varied(config: Config, recipe: str, values: dict[str, Value]) -> Config:
    """Set what a sweep varies.

    Args:
        config: A run.
        recipe: The name under which the sweep is stored.
        values: Dotted names and values.

    Returns:
        The run with these values.
    """
    texts = [f"{name}={written(value)}" for name, value in values.items()]
    return config.override(texts).model_copy(update={"recipe": recipe, "sweep": values})
