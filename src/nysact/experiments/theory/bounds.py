"""The bounds on the mean squared gradient norm: proofs in docs/theory.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spectrum:
    """What is known of the preconditioners P of a whole run.

    Args:
        low: The least eigenvalue of any P.
        high: The greatest.
        error: The greatest error |A - A_hat| (spectral norm) of the covariance A_hat that P is
            the damped inverse of.
        damping: The damping.
    """

    low: float
    high: float
    error: float
    damping: float


def learning_rate(smoothness: float, spectrum: Spectrum) -> float:
    """Give the greatest learning rate of theorem 5.5: low / (L high^2)."""
    return spectrum.low / (smoothness * spectrum.high**2)


def theorem(
    gap: float, rate: float, steps: int, smoothness: float, variance: float, spectrum: Spectrum
) -> float:
    """Bound the mean over the steps of E|grad|^2 as theorem 5.5 does.

    Args:
        gap: Loss at the start less the minimum.
        rate: The learning rate, at most that of :func:`learning_rate`.
        steps: Number of steps T.
        smoothness: L.
        variance: A bound on the variance of the stochastic gradient.
        spectrum: What is known of P.

    Returns:
        2 gap / (rate low T) + rate L high^2 variance / low.
    """
    decay = 2 * gap / (rate * spectrum.low * steps)
    return decay + rate * smoothness * spectrum.high**2 * variance / spectrum.low


def relative_smoothness(curvature: float, spectrum: Spectrum) -> float:
    """Bound the smoothness relative to P, which the error governs: remark 5.6 made precise.

    A <= A_hat + error I, hence P^(1/2) A P^(1/2) <= max(1, error / damping) I.

    Args:
        curvature: The bound on the loss's second derivative in each output.
        spectrum: What is known of P.

    Returns:
        curvature * max(1, error / damping); up to its reciprocal a learning rate descends.
    """
    return curvature * max(1.0, spectrum.error / spectrum.damping)


def error_bound(gap: float, rate: float, steps: int, spectrum: Spectrum) -> float:
    """Bound the mean squared gradient norm of full gradients.

    Args:
        gap: Loss at the start less the minimum.
        rate: The learning rate, at most the reciprocal of :func:`relative_smoothness`.
        steps: Number of steps T.
        spectrum: What is known of P.

    Returns:
        2 gap / (rate low T); at the largest rate proportional to the error once that exceeds the
        damping.
    """
    return 2 * gap / (rate * spectrum.low * steps)
