"""Searches that know their trials beforehand: all combinations, or random draws."""

import itertools
import random
from collections.abc import Mapping

from nysact.experiments.config import Value
from nysact.experiments.errors import ExperimentError
from nysact.experiments.sweeps.space import Choice, Space

Trial = dict[str, Value]


def grid(spaces: Mapping[str, Space]) -> list[Trial]:
    """List all combinations of values.

    Args:
        spaces: For each setting its values.

    Returns:
        The combinations, the last setting varying fastest.

    Raises:
        ExperimentError: If a setting has a range and not values.
    """
    choices = []
    for name, space in spaces.items():
        if not isinstance(space, Choice):
            raise ExperimentError(
                f"--vary {name}: a grid needs values with commas between; give those, or choose "
                "--search random or --search adaptive"
            )
        choices.append(space.values)
    return [dict(zip(spaces, values, strict=True)) for values in itertools.product(*choices)]


def draws(spaces: Mapping[str, Space], count: int, seed: int) -> list[Trial]:
    """Draw values at random.

    Args:
        spaces: For each setting its values or range.
        count: How many trials.
        seed: Seed of the draws; each trial has a stream of its own, so that asking for more
            trials keeps the first ones.

    Returns:
        The trials.
    """
    streams = (random.Random(f"{seed}/{number}") for number in range(count))
    return [{name: space.draw(stream) for name, space in spaces.items()} for stream in streams]
