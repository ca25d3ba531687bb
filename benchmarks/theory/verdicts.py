"""The claims of section 5, judged by the measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
from benchmarks.theory.measure import Accuracy, Decay
from benchmarks.theory.norms import Norms

# A layer's norm counts as bounded if it rises in the second half of the training to at most this
# many times its maximum in the first.
GROWTH = 1.5
# Without noise, T times the mean is a sum that can only grow, so that the exponent of T is never
# below -1; up to this much above it, the sum grows by less than a quarter in the last decade.
TOLERANCE = 0.1
# The smaller the batch, the higher must the exponent be, and where the noise is largest relative
# to the gradient it must be closer to 0 (a plateau) than to -1 (a decay).
PLATEAU = -0.5
# A rank correlation of error and gradient norm from which on there is a trend: 19 errors in random
# order have a larger one in one case of twenty. A law without exceptions would have 1.
TREND = 0.39


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds."""

    claim: str
    holds: bool
    found: str  # the measurements in a sentence
    control: bool = False  # beyond the paper, to show how its claim is to be read


def judge_norms(found: Sequence[Norms]) -> Verdict:
    """Judge assumption 5.3."""
    growths = {
        f"{norms.optimizer}, layer {layer}": norms.growth(layer)
        for norms in found
        for layer in norms.layers
    }
    worst = max(growths, key=lambda name: growths[name])
    return Verdict(
        "Assumption 5.3: the norms of the covariances stay bounded during training.",
        growths[worst] <= GROWTH,
        f"the largest norm of the second half of the training is at most {growths[worst]:.2f} "
        f"times that of the first half ({worst}).",
    )


def judge_decays(found: Sequence[Decay]) -> Verdict:
    """Judge theorem 5.5."""
    nearest = max(m / b for d in found for m, b in zip(d.measured, d.bounds, strict=True))
    exact = [decay for decay in found if decay.batch_size is None]
    drawn = [decay for decay in found if decay.batch_size is not None]
    falls = all(abs(decay.slope + 1) <= TOLERANCE for decay in exact)
    plateaus = rise_with_noise(found) and max(decay.slope for decay in drawn) > PLATEAU
    return Verdict(
        "Theorem 5.5: the mean squared gradient norm falls as 1/T, down to a plateau set by the "
        "noise of the gradient.",
        all(decay.holds for decay in found) and falls and plateaus,
        f"the largest ratio of a mean to its bound is {nearest:.2f} (expected at most 1). "
        f"The exponent of T over the last decade is {slopes(exact)} with exact gradients (expected "
        f"-1, within {TOLERANCE}) and {slopes(drawn)} with stochastic ones (expected higher for "
        f"smaller batches, the highest above {PLATEAU}).",
    )


def rise_with_noise(found: Sequence[Decay]) -> bool:
    """Tell whether the exponent of each problem is higher, the smaller the batch."""
    problems: dict[str, list[Decay]] = {}
    for decay in sorted(found, key=lambda decay: -(decay.batch_size or math.inf)):
        problems.setdefault(decay.problem, []).append(decay)
    pairs = [pair for decays in problems.values() for pair in pairwise(decays)]
    return all(more.slope < less.slope for more, less in pairs)


def slopes(found: Sequence[Decay]) -> str:
    """Write out the exponents of T."""
    batches = [f", batch {decay.batch_size}" if decay.batch_size else "" for decay in found]
    return ", ".join(
        f"{decay.slope:.2f} ({decay.problem}{batch})"
        for decay, batch in zip(found, batches, strict=True)
    )


def judge_accuracies(found: Sequence[Accuracy], *, common: bool) -> Verdict:
    """Judge remark 5.6, at the sketches' own learning rates or at one for all.

    One for all is a control: does the error slow the convergence other than by the learning rate
    that it allows?
    """
    problems: dict[str, list[Accuracy]] = {}
    for one in found:
        if one.common == common:
            problems.setdefault(one.problem, []).append(one)
    mine = [one for group in problems.values() for one in group]
    trends = {name: trend(group) for name, group in problems.items()}
    said = ", ".join(f"{value:.2f} ({name})" for name, value in trends.items())
    slowest = [max(group, key=lambda one: one.measured) for group in problems.values()]
    nearest = max(one.measured / one.bound for one in mine)
    peaks = ", ".join(
        f"{one.error:.2f} of {one.sketch}, rank {one.rank} ({one.problem})" for one in slowest
    )
    return Verdict(
        "Remark 5.6: the error of the Nystrom approximation slows the convergence, "
        f"{'at one learning rate for all' if common else 'at the learning rate it allows'}.",
        min(trends.values()) >= TREND and all(one.holds for one in mine),
        f"the rank correlation of error and mean squared gradient norm is {said} (expected at "
        f"least {TREND}); the norm is largest at the error {peaks}. The largest ratio of a mean "
        f"to its bound is {nearest:.2f} (expected at most 1).",
        control=common,
    )


def trend(found: Sequence[Accuracy]) -> float:
    """Return the rank correlation of the errors and the mean squared gradient norms."""
    ranks = pd.DataFrame([(one.error, one.measured) for one in found]).rank()
    return float(ranks[0].corr(ranks[1]))
