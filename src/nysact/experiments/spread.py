"""Mean and standard deviation over seeds."""

import math
from collections.abc import Sequence
from statistics import fmean


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Take the mean and the sample standard deviation, 0 for a single value.

    Values that are not finite make the results so, where ``statistics.stdev`` would fail.

    Args:
        values: At least one value.

    Returns:
        The mean and the standard deviation.
    """
    mean = fmean(values)
    squares = sum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0
