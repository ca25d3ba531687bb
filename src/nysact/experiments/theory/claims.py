"""The claims of section 5, each with what was measured for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import correlation, fmean

import torch

from nysact.experiments.theory.bounds import (
    Spectrum,
    error_bound,
    learning_rate,
    relative_smoothness,
    theorem,
)
from nysact.experiments.theory.descent import Descent, Sketch, rehearse, squared_norms
from nysact.experiments.theory.norms import Norms
from nysact.experiments.theory.problem import Problem

# A layer's norm counts as bounded if the second half of the training takes it no higher than so
# many times what it reached in the first.
GROWTH = 1.5
# Without noise, T times the mean is a sum that can only grow, so that the exponent of T is never
# below -1; up to this much above it, the sum grows by less than a quarter in the last decade.
TOLERANCE = 0.1
# The smaller the batch, the higher must the exponent be, and where the noise is largest beside the
# gradient it must be nearer to the 0 of a level than to the -1 of a fall.
LEVEL = -0.5
# So large must the rank correlation of error and gradient be for a trend: 19 errors in random order
# have a larger one in one case of twenty. A law without exceptions would have 1.
TREND = 0.39


@dataclass(frozen=True)
class Decay:
    """Theorem 5.5: the mean squared gradient norm of the first T steps, and its bound.

    Args:
        problem: What was minimised.
        batch_size: Rows drawn a step, ``None`` for the exact gradient.
        rate: The learning rate that the theorem allows.
        variance: The largest variance of the stochastic gradient that occurred.
        steps: T.
        measured: The mean over the first T steps, and over the seeds.
        bounds: What the theorem allows.
    """

    problem: str
    batch_size: int | None
    rate: float
    variance: float
    steps: Sequence[int]
    measured: Sequence[float]
    bounds: Sequence[float]

    @property
    def holds(self) -> bool:
        """Whether the bound holds for every T."""
        return all(m <= b for m, b in zip(self.measured, self.bounds, strict=True))

    @property
    def slope(self) -> float:
        """The exponent of T over the last decade; the theorem has -1 without noise."""
        last = len(self.steps) - 1
        first = min(range(last), key=lambda i: abs(self.steps[i] - self.steps[last] / 10))
        fall = math.log(self.measured[last] / self.measured[first])
        return fall / math.log(self.steps[last] / self.steps[first])


@dataclass(frozen=True)
class Accuracy:
    """Remark 5.6: what a sketch's error does to the convergence.

    Args:
        problem: What was minimised.
        sketch: What the covariance was multiplied with.
        rank: Rank of the sketch.
        error: The largest error |A - A_hat| of the run, in the spectral norm.
        common: Whether the learning rate is one for all, which the largest error allows; otherwise
            it is the one that this error allows.
        rate: The learning rate.
        measured: The mean squared gradient norm.
        bound: What the error and the learning rate allow.
        excess: The loss at the end above the minimum, or above its bound where that is all there
            is.
    """

    problem: str
    sketch: str
    rank: int
    error: float
    common: bool
    rate: float
    measured: float
    bound: float
    excess: float

    @property
    def holds(self) -> bool:
        """Whether the bound holds."""
        return self.measured <= self.bound


def gap_of(problem: Problem) -> float:
    """Subtract the minimum from the loss of zero weights."""
    shape = (problem.targets.shape[1], problem.inputs.shape[1])
    return problem.loss(torch.zeros(shape, dtype=torch.float64)) - problem.minimum


def measure_decay(
    problem: Problem, sketch: Sketch, batch_size: int | None, steps: int, seeds: Sequence[int]
) -> Decay:
    """Measure the mean squared gradient norm at the theorem's learning rate.

    Args:
        problem: What is minimised.
        sketch: How NysAct approximates.
        batch_size: Rows drawn a step, ``None`` for the exact gradient.
        steps: Steps of the longest run.
        seeds: Seeds of the draws; the theorem bounds an expectation, which is their mean.

    Returns:
        Measurements and bounds at about ten T a decade.
    """
    spectrum = rehearse(problem, sketch, steps)
    rate = learning_rate(problem.smoothness, spectrum)
    runs = [
        list(squared_norms(Descent(problem, sketch, rate, batch_size, seed), steps))
        for seed in (seeds if batch_size else seeds[:1])
    ]
    variance = max(v for run in runs for _, v in run)
    decades = math.log10(steps)
    times = sorted({round(10 ** (i / 10)) for i in range(int(10 * decades) + 1)} | {steps})
    gap, smoothness = gap_of(problem), problem.smoothness
    return Decay(
        problem.name,
        batch_size,
        rate,
        variance,
        times,
        [fmean(norm for run in runs for norm, _ in run[:t]) for t in times],
        [theorem(gap, rate, t, smoothness, variance, spectrum) for t in times],
    )


def measure_accuracies(problem: Problem, sketches: Sequence[Sketch], steps: int) -> list[Accuracy]:
    """Descend with exact gradients and each sketch, at the rate of its own and at a common one.

    Args:
        problem: What is minimised.
        sketches: How NysAct approximates.
        steps: How many.

    Returns:
        Measurements and bounds.
    """
    spectra = [rehearse(problem, sketch, steps) for sketch in sketches]
    rates = [1 / relative_smoothness(problem.curvature, spectrum) for spectrum in spectra]
    return [
        measure_accuracy(problem, sketch, spectrum, min(rates) if common else own, steps, common)
        for common in (False, True)
        for sketch, spectrum, own in zip(sketches, spectra, rates, strict=True)
    ]


def measure_accuracy(
    problem: Problem, sketch: Sketch, spectrum: Spectrum, rate: float, steps: int, common: bool
) -> Accuracy:
    """Descend with exact gradients and one sketch.

    Args:
        problem: What is minimised.
        sketch: How NysAct approximates.
        spectrum: What is known of the preconditioners.
        rate: The learning rate.
        steps: How many.
        common: Whether the rate is that of all sketches.

    Returns:
        Measurement and bound.
    """
    descent = Descent(problem, sketch, rate)
    return Accuracy(
        problem=problem.name,
        sketch=sketch.sketch,
        rank=sketch.rank,
        error=spectrum.error,
        common=common,
        rate=rate,
        measured=fmean(norm for norm, _ in squared_norms(descent, steps)),
        bound=error_bound(gap_of(problem), rate, steps, spectrum),
        excess=problem.loss(descent.weight) - problem.minimum,
    )


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held.

    Args:
        claim: What the paper says.
        holds: Whether every measurement agrees.
        found: The measurements in a sentence.
        control: Whether it goes beyond what the paper says, to show how that is to be read.
    """

    claim: str
    holds: bool
    found: str
    control: bool = False

    @property
    def in_words(self) -> str:
        """Whether the claim held, and that it is none of the paper's if it isn't."""
        return f"{'yes' if self.holds else 'no'}{' (control)' if self.control else ''}"


def judge_norms(found: Sequence[Norms]) -> Verdict:
    """Judge assumption 5.3."""
    growths = {
        f"{norms.optimizer}, layer {layer}": norms.growth(layer)
        for norms in found
        for layer in norms.layers
    }
    worst = max(growths, key=lambda name: growths[name])
    return Verdict(
        "Assumption 5.3: the norms of the covariances stay bounded during the training.",
        growths[worst] <= GROWTH,
        f"the largest norm of the second half of the training is at most {growths[worst]:.2f} "
        f"times that of the first half ({worst}).",
    )


def judge_decays(found: Sequence[Decay]) -> Verdict:
    """Judge theorem 5.5."""
    nearest = max(m / b for d in found for m, b in zip(d.measured, d.bounds, strict=True))
    exact = [decay for decay in found if decay.batch_size is None]
    drawn = [decay for decay in found if decay.batch_size is not None]
    falls = all(-1 - TOLERANCE <= decay.slope <= -1 + TOLERANCE for decay in exact)
    levels = rise_with_noise(found) and max(decay.slope for decay in drawn) > LEVEL
    return Verdict(
        "Theorem 5.5: the mean squared gradient norm falls as 1/T, down to a level set by the "
        "noise of the gradient.",
        all(decay.holds for decay in found) and falls and levels,
        f"the largest share of its bound that a mean takes is {nearest:.2f} (expected at most 1). "
        f"The exponent of T over the last decade is {slopes(exact)} with exact gradients (expected "
        f"-1, within {TOLERANCE}) and {slopes(drawn)} with drawn ones (expected higher the smaller "
        f"the batch, the highest above {LEVEL}).",
    )


def rise_with_noise(found: Sequence[Decay]) -> bool:
    """Tell whether in each problem the exponent is higher, the fewer rows are drawn."""
    problems: dict[str, list[Decay]] = {}
    for decay in sorted(found, key=lambda decay: -(decay.batch_size or math.inf)):
        problems.setdefault(decay.problem, []).append(decay)
    pairs = [pair for decays in problems.values() for pair in pairwise(decays)]
    return all(more.slope < less.slope for more, less in pairs)


def slopes(found: Sequence[Decay]) -> str:
    """Write out the exponents of T."""
    return ", ".join(
        f"{decay.slope:.2f} ({decay.problem}{f', batch {size}' if size else ''})"
        for decay, size in ((each, each.batch_size) for each in found)
    )


def judge_accuracies(found: Sequence[Accuracy], *, common: bool) -> Verdict:
    """Judge remark 5.6.

    Args:
        found: The measurements.
        common: Whether to judge those at one learning rate for all: they are a control, of whether
            the error slows the convergence otherwise than by the learning rate that it allows.

    Returns:
        The verdict.
    """
    found = [one for one in found if one.common == common]
    trends = {
        problem: trend([one for one in found if one.problem == problem])
        for problem in dict.fromkeys(one.problem for one in found)
    }
    said = ", ".join(f"{value:.2f} ({problem})" for problem, value in trends.items())
    nearest = max(one.measured / one.bound for one in found)
    slowest = {
        problem: max((one for one in found if one.problem == problem), key=lambda a: a.measured)
        for problem in trends
    }
    peaks = ", ".join(
        f"{one.error:.2f} of {one.sketch}, rank {one.rank} ({name})"
        for name, one in slowest.items()
    )
    return Verdict(
        "Remark 5.6: the error of the Nystrom approximation slows the convergence, "
        f"{'at one learning rate for all' if common else 'at the learning rate it allows'}.",
        min(trends.values()) >= TREND and all(one.holds for one in found),
        f"the rank correlation of error and mean squared gradient norm is {said} (expected at "
        f"least {TREND}); the norm is largest at the error {peaks}. The largest share of its bound "
        f"that a mean takes is {nearest:.2f} (expected at most 1).",
        control=common,
    )


def trend(found: Sequence[Accuracy]) -> float:
    """Correlate the ranks of the errors with those of the mean squared gradient norms."""
    errors, norms = ([one.error for one in found], [one.measured for one in found])
    return correlation(*([sorted(each).index(value) for value in each] for each in (errors, norms)))
