"""What step times say: quantiles, and ratios to the reference's times with their spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles

from nysact.experiments.bench.schedule import KINDS, Kind, Schedule

Quartiles = tuple[float, float]


@dataclass(frozen=True)
class KindFigures:
    """Steps of one kind.

    Args:
        steps: Their number.
        median: Median time in seconds.
        ratio: Median ratio to the reference's step of the same round.
        quartiles: Quartiles of that ratio.
    """

    steps: int
    median: float
    ratio: float
    quartiles: Quartiles


@dataclass(frozen=True)
class Figures:
    """All that the times of one optimizer say.

    Args:
        steps: Steps counted.
        mean: Mean time of a step in seconds.
        median: Median time.
        p99: 99th percentile, interpolated.
        tail: 99th percentile over median.
        total: Ratio of the sums, to the reference's.
        windows: The same for each whole cycle.
        window_median: Their median.
        window_quartiles: Their quartiles.
        composed: Mean over a cycle of the median ratio of each step's kind, which moments in
            which other programs disturb the measurement hardly move.
        kinds: By kind of step.
    """

    steps: int
    mean: float
    median: float
    p99: float
    tail: float
    total: float
    windows: list[float]
    window_median: float
    window_quartiles: Quartiles
    composed: float
    kinds: dict[Kind, KindFigures]


def figures(
    seconds: Sequence[float],
    reference: Sequence[float],
    schedule: Schedule,
    *,
    first: int,
    cycle: int,
) -> Figures:
    """Sum up the times of one optimizer.

    Args:
        seconds: Time of each step.
        reference: Time of the reference's step in the same round.
        schedule: Tells the steps' kinds.
        first: Steps that were done before the first of these.
        cycle: Steps in a cycle, of which these are a multiple.

    Returns:
        The figures.

    Raises:
        ValueError: If the times aren't those of whole cycles.
    """
    if not seconds or len(seconds) % cycle or len(seconds) != len(reference):
        raise ValueError(
            f"{len(seconds)} steps against {len(reference)} of the reference: expected as many, "
            f"in whole cycles of {cycle}"
        )
    starts = range(0, len(seconds), cycle)
    windows = [sum(seconds[i : i + cycle]) / sum(reference[i : i + cycle]) for i in starts]
    kinds = by_kind(seconds, reference, schedule, first)
    middle, p99 = median(seconds), percentile(seconds, 99)
    return Figures(
        steps=len(seconds),
        mean=fmean(seconds),
        median=middle,
        p99=p99,
        tail=p99 / middle,
        total=sum(seconds) / sum(reference),
        windows=windows,
        window_median=median(windows),
        window_quartiles=quartiles(windows),
        composed=sum(of.steps * of.ratio for of in kinds.values()) / len(seconds),
        kinds=kinds,
    )


def by_kind(
    seconds: Sequence[float], reference: Sequence[float], schedule: Schedule, first: int
) -> dict[Kind, KindFigures]:
    """Compare steps in pairs, by kind.

    Args:
        seconds: Time of each step.
        reference: Time of the reference's step in the same round.
        schedule: Tells the steps' kinds.
        first: Steps that were done before the first of these.

    Returns:
        Figures of each kind that there is.
    """
    pairs: dict[Kind, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for step, pair in enumerate(zip(seconds, reference, strict=True), start=first):
        pairs[schedule.kind(step)].append(pair)
    return {kind: kind_figures(of) for kind, of in pairs.items() if of}


def kind_figures(pairs: Sequence[tuple[float, float]]) -> KindFigures:
    """Sum up steps of one kind, each with the reference's of its round."""
    ratios = [mine / other for mine, other in pairs]
    return KindFigures(
        len(pairs), median(mine for mine, _ in pairs), median(ratios), quartiles(ratios)
    )


def quartiles(values: Sequence[float]) -> Quartiles:
    """Give the lower and the upper quartile, interpolated."""
    return percentile(values, 25), percentile(values, 75)


def percentile(values: Sequence[float], percent: int) -> float:
    """Give a percentile, interpolated between the values; that of one value is the value."""
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]
