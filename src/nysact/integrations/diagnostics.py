"""What a logger takes of ``diagnostics()``: names and plain numbers."""

from typing import Any

from torch import Tensor

from nysact.integrations.attach import unwrap


def flat_diagnostics(optimizer: Any) -> dict[str, float]:
    """Describe the factors of each layer in plain numbers, for a logger.

    Args:
        optimizer: What :func:`unwrap` takes.

    Returns:
        Name such as ``"nysact/head/trace_captured"`` to its value; of the eigenvalues the
        largest, of what a grouped convolution has several of the mean. What is not known before
        the first refresh is left out.
    """
    return {
        f"nysact/{layer}/{name}": _number(name, value)
        for layer, values in unwrap(optimizer).diagnostics().items()
        for name, value in values.items()
        if value is not None
    }


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Tensor):
        return float(value)
    return float(value.max() if name == "eigenvalues" else value.mean())
