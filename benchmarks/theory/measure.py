"""Measurements of theorem 5.5 and of remark 5.6 on a problem, beside their bounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.theory.bounds import (
    Spectrum,
    error_bound,
    learning_rate,
    relative_smoothness,
    theorem,
)
from benchmarks.theory.descent import Descent, Sketch, rehearse, squared_norms
from benchmarks.theory.problem import Problem


@dataclass(frozen=True)
class Decay:
    """Theorem 5.5: the mean squared gradient norm of the first T steps, and its bound."""

    problem: str
    batch_size: int | None  # rows drawn a step, None for the exact gradient
    rate: float  # the learning rate that the theorem allows
    variance: float  # the largest variance of the stochastic gradient that occurred
    steps: Sequence[int]  # T
    measured: Sequence[float]  # means over the first T steps, and over the seeds
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
    """Remark 5.6: what the error of a sketch does to the convergence."""

    problem: str
    sketch: str
    rank: int
    error: float  # the largest |A - A_hat| of the run, in the spectral norm
    common: bool  # one learning rate for all, which the largest error allows, or its own
    rate: float
    measured: float  # mean squared gradient norm
    bound: float
    excess: float  # final loss above the minimum, or above the minimum's lower bound

    @property
    def holds(self) -> bool:
        """Whether the bound holds."""
        return self.measured <= self.bound


def measure_decay(
    problem: Problem, sketch: Sketch, batch_size: int | None, steps: int, seeds: Sequence[int]
) -> Decay:
    """Measure at the theorem's learning rate, for about ten T a decade.

    The theorem bounds an expectation; the mean over the seeds of the draws stands for it.
    """
    spectrum = rehearse(problem, sketch, steps)
    rate = learning_rate(problem.smoothness, spectrum)
    runs = [
        list(squared_norms(Descent(problem, sketch, rate, batch_size, seed), steps))
        for seed in (seeds if batch_size else seeds[:1])
    ]
    variance = max(v for run in runs for _, v in run)
    tenths = range(int(10 * math.log10(steps)) + 1)
    times = sorted({*(round(10 ** (i / 10)) for i in tenths), steps})
    gap, smoothness = problem.gap, problem.smoothness
    measured = [fmean(norm for run in runs for norm, _ in run[:t]) for t in times]
    bounds = [theorem(gap, rate, t, smoothness, variance, spectrum) for t in times]
    return Decay(problem.name, batch_size, rate, variance, times, measured, bounds)


def measure_accuracies(problem: Problem, sketches: Sequence[Sketch], steps: int) -> list[Accuracy]:
    """Descend with exact gradients and each sketch, at its own rate and at a common one."""
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
    """Descend with exact gradients and one sketch."""
    descent = Descent(problem, sketch, rate)
    measured = fmean(norm for norm, _ in squared_norms(descent, steps))
    return Accuracy(
        problem.name, sketch.sketch, sketch.rank, spectrum.error, common, rate, measured,
        bound=error_bound(problem.gap, rate, steps, spectrum),
        excess=problem.loss(descent.weight) - problem.minimum,
    )  # fmt: skip
