"""The bounds on the mean squared gradient norm: proofs in docs/theory.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spectrum:
    """What is known of the preconditioners P of a whole run."""

    low: float  # smallest eigenvalue of any P
    high: float  # largest
    error: float  # largest |A - A_hat| in the spectral norm, where P = (A_hat + damping I)^-1
    damping: float


def learning_rate(smoothness: float, spectrum: Spectrum) -> float:
    """Return the largest learning rate of theorem 5.5: low / (L high^2)."""
    return spectrum.low / (smoothness * spectrum.high**2)


def theorem(
    gap: float, rate: float, steps: int, smoothness: float, variance: float, spectrum: Spectrum
) -> float:
    """Bound the mean over T steps of E|grad|^2: 2 gap / (rate low T) + rate L high^2 var / low.

    The gap is the initial loss above the minimum; the rate is at most :func:`learning_rate`.
    """
    noise = rate * smoothness * spectrum.high**2 * variance / spectrum.low
    return error_bound(gap, rate, steps, spectrum) + noise


def relative_smoothness(curvature: float, spectrum: Spectrum) -> float:
    """Bound the smoothness relative to P, curvature max(1, error / damping): remark 5.6.

    A <= A_hat + error I, hence P^(1/2) A P^(1/2) <= max(1, error / damping) I. A learning rate up
    to the reciprocal descends.
    """
    return curvature * max(1.0, spectrum.error / spectrum.damping)


def error_bound(gap: float, rate: float, steps: int, spectrum: Spectrum) -> float:
    """Bound the mean of |grad|^2 with full gradients, rate <= 1 / :func:`relative_smoothness`."""
    return 2 * gap / (rate * spectrum.low * steps)
