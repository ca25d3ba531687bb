"""The claims of section 5, each with what was measured for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

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
        rank: Rank of the sketch.
        error: The largest error |A - A_hat| of the run, in the spectral norm.
        rate: The learning rate that this error allows.
        measured: The mean squared gradient norm.
        bound: What the error allows.
        excess: The loss at the end above the minimum, or above its bound where that is all there
            is.
    """

    problem: str
    rank: int
    error: float
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


def measure_accuracy(problem: Problem, sketch: Sketch, steps: int) -> Accuracy:
    """Descend with exact gradients at the learning rate that the sketch's error allows.

    Args:
        problem: What is minimised.
        sketch: How NysAct approximates.
        steps: How many.

    Returns:
        Measurement and bound.
    """
    spectrum: Spectrum = rehearse(problem, sketch, steps)
    rate = 1 / relative_smoothness(problem.curvature, spectrum)
    descent = Descent(problem, sketch, rate)
    return Accuracy(
        problem.name,
        sketch.rank,
        spectrum.error,
        rate,
        fmean(norm for norm, _ in squared_norms(descent, steps)),
        error_bound(gap_of(problem), steps, problem.curvature, spectrum),
        problem.loss(descent.weight) - problem.minimum,
    )


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held.

    Args:
        claim: What the paper says.
        holds: Whether every measurement agrees.
        found: The measurements in a sentence.
    """

    claim: str
    holds: bool
    found: str


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
    slopes = ", ".join(f"{d.slope:.2f} ({d.problem})" for d in found if d.batch_size is None)
    return Verdict(
        "Theorem 5.5: the mean squared gradient norm falls as 1/T, down to a level set by the "
        "noise of the gradient.",
        all(decay.holds for decay in found),
        f"every mean is below its bound, the nearest at {nearest:.2f} of it. With exact "
        f"gradients the exponent of T over the last decade is {slopes}.",
    )


def judge_accuracies(found: Sequence[Accuracy]) -> Verdict:
    """Judge remark 5.6."""
    parts, slower = [], True
    for problem in dict.fromkeys(one.problem for one in found):
        mine = sorted((one for one in found if one.problem == problem), key=lambda a: a.error)
        slower &= mine[0].excess < mine[-1].excess and mine[0].measured < mine[-1].measured
        parts.append(
            f"{problem}: from error {mine[0].error:.1e} (rank {mine[0].rank}) to "
            f"{mine[-1].error:.2f} (rank {mine[-1].rank}) the mean squared gradient norm goes "
            f"from {mine[0].measured:.1e} to {mine[-1].measured:.1e}, the loss above the minimum "
            f"from {mine[0].excess:.1e} to {mine[-1].excess:.1e}"
        )
    return Verdict(
        "Remark 5.6: the error of the Nystrom approximation slows the convergence.",
        slower and all(one.holds for one in found),
        f"{'; '.join(parts)}. Every mean is below the bound that its error allows.",
    )
