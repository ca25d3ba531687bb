"""How much of a model an optimizer preconditions, in words."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from nysact.engine import Layer

_LARGEST = 3


class Coverage(NamedTuple):
    """Numbers of weights, biases among them: preconditioned, in all, and left out by module."""

    covered: int
    total: int
    left: Counter[str]

    @property
    def share(self) -> float:
        return self.covered / max(self.total, 1)


def coverage_of(layers: Sequence[Layer], groups: Sequence[Mapping[str, Any]]) -> Coverage:
    """Count the trainable weights of parameter groups."""
    ours: set[Tensor] = {layer.weight for layer in layers}
    ours |= {layer.bias for layer in layers if layer.bias is not None}
    covered, left = 0, Counter[str]()
    for group in groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            if param in ours:
                covered += param.numel()
            elif param.requires_grad:
                left[name.rpartition(".")[0]] += param.numel()
    return Coverage(covered, covered + left.total(), left)


def warn_of_small(name: str, coverage: Coverage, skipped: Mapping[str, str]) -> None:
    """Warn if most weights get the plain update, and not because the user said so."""
    if coverage.share >= 0.5:
        return
    largest = [
        f"{module or 'model'!r} ({count:,}: {skipped.get(module, 'no adapter serves it')})"
        for module, count in coverage.left.most_common(_LARGEST)
    ]
    warnings.warn(
        f"{name} preconditions {coverage.share:.0%} of the {coverage.total:,} weights; the "
        f"others get the update without it. The largest modules left out: {', '.join(largest)}. "
        "optimizer.summary() lists all; register an adapter for what is linear in its weight",
        stacklevel=5,
    )


def by_reason(skipped: Mapping[str, str], left: Counter[str]) -> list[str]:
    """Lines that group the modules left out by their reason, the largest first."""
    members: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        members.setdefault(reason, []).append(name)
    sizes = {reason: sum(left[name] for name in names) for reason, names in members.items()}
    lines = []
    for reason in sorted(members, key=lambda reason: -sizes[reason]):
        names = members[reason]
        more = f" and {len(names) - _LARGEST} more" if len(names) > _LARGEST else ""
        shown = ", ".join(name or "model" for name in names[:_LARGEST])
        lines.append(f"{sizes[reason]:,} weights in {shown}{more}: {reason}")
    return lines


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Plain numbers for a logger: the largest eigenvalue, and the mean of other tensors."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            value = value.max() if name == "eigenvalues" else value.mean()
        if value is not None:
            found[name] = float(value)
    return found
