"""Step times summed up: quantiles, and ratios to the reference's times with their spread."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nysact.experiments.bench.schedule import KINDS, Kind

Quartiles = tuple[float, float]


@dataclass(frozen=True)
class KindFigures:
    """Steps of one kind."""

    steps: int
    median: float  # seconds
    ratio: float  # median ratio to the reference's step of the same round
    quartiles: Quartiles  # of that ratio


@dataclass(frozen=True)
class Figures:
    """All steps of one optimizer."""

    steps: int
    mean: float  # seconds
    median: float
    p99: float  # interpolated
    tail: float  # p99 / median
    total: float  # ratio of the sums to the reference's
    windows: list[float]  # the same for each whole cycle
    window_median: float
    window_quartiles: Quartiles
    # Mean over a cycle of the median ratio of each step's kind; moments in which other programs
    # disturb the measurement hardly move it.
    composed: float
    kinds: dict[Kind, KindFigures]


def figures(seconds: pd.Series, reference: pd.Series, kinds: Sequence[Kind], cycle: int) -> Figures:
    """Sum up the times of one optimizer's steps, whole cycles of them, and their kinds."""
    if not len(seconds) or len(seconds) % cycle or len(seconds) != len(reference):
        raise ValueError(
            f"{len(seconds)} steps and {len(reference)} of the reference: expected equal numbers, "
            f"in whole cycles of {cycle}"
        )
    window = np.arange(len(seconds)) // cycle
    windows = seconds.groupby(window).sum() / reference.groupby(window).sum()
    steps = pd.DataFrame({"kind": list(kinds), "seconds": seconds, "ratio": seconds / reference})
    by_kind = {kind: kind_figures(of) for kind in KINDS if len(of := steps[steps.kind == kind])}
    median, p99 = seconds.median(), seconds.quantile(0.99)
    return Figures(
        steps=len(seconds),
        mean=float(seconds.mean()),
        median=float(median),
        p99=float(p99),
        tail=float(p99 / median),
        total=float(seconds.sum() / reference.sum()),
        windows=windows.tolist(),
        window_median=float(windows.median()),
        window_quartiles=quartiles(windows),
        composed=sum(of.steps * of.ratio for of in by_kind.values()) / len(seconds),
        kinds=by_kind,
    )


def kind_figures(steps: pd.DataFrame) -> KindFigures:
    """Sum up steps of one kind."""
    median, ratio = steps.seconds.median(), steps.ratio.median()
    return KindFigures(len(steps), float(median), float(ratio), quartiles(steps.ratio))


def quartiles(values: pd.Series) -> Quartiles:
    """Return the lower and the upper quartile, interpolated."""
    return float(values.quantile(0.25)), float(values.quantile(0.75))
