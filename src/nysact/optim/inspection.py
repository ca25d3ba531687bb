"""The public views of the layers that an optimizer preconditions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from nysact.engine import Engine, Layer
from nysact.optim.assignment import Assignments
from nysact.optim.coverage import by_reason, coverage_of, numbers
from nysact.optim.settings import Option


class InspectableOptimizer(Optimizer):
    """An optimizer with an engine, whose layers and factors can be looked at."""

    _SHOWN = ("update", "lr", "momentum", "weight_decay", "damping", "rank", "precondition")
    _options: ClassVar[dict[str, Option]]
    engine: Engine
    _skipped: Mapping[str, str]
    _assignments: Assignments

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Module name to what is known of that preconditioned layer."""
        return dict(self.engine.layers)

    @property
    def skipped(self) -> Mapping[str, str]:
        """Module name to the reason why its parameters get the plain update.

        A layer of :attr:`layers` whose weight another module uses without calling it is here too,
        from the first step with statistics on, and a layer whose weight was pruned or parametrised
        from the next step on.
        """
        return {**self._skipped, **self.engine.skipped}

    @property
    def updates(self) -> Mapping[str, str]:
        """Parameter name to its update and the reason, such as ``"adamw: an embedding"``."""
        return {
            name: f"{group['update']}: {self._assignments.reason(param)}"
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
        }

    def inverse(self, name: str) -> Tensor:
        """Write out the current preconditioner of a layer, for tests and plots.

        Args:
            name: The layer's name, a key of :attr:`layers`.

        Returns:
            The inverse that gradients are multiplied with from the right, ``(d, d)``, or
            ``(groups, d, d)`` for a grouped convolution; input features first and the bias last;
            the identity before the first refresh. Dtype of the statistics.

        Raises:
            KeyError: If no layer has this name.
        """
        if name not in self.engine.layers:
            why = self._skipped.get(name, f"expected one of {sorted(self.engine.layers)}")
            raise KeyError(f"no preconditioned layer is called {name!r}: {why}")
        return self.engine.inverse(self.engine.layers[name])

    def diagnostics(self, *, flat: bool = False) -> dict[str, Any]:
        """Describe the current factors of each layer.

        Args:
            flat: Return plain numbers for a logger, ``"layer/trace_captured"`` to its value: the
                largest eigenvalue, and the mean of the other tensors over a convolution's groups.
                Values that are not known yet are left out.

        Returns:
            Layer name to ``rank``, ``eigenvalues`` (ascending, ``(groups, rank)``) and ``trace``
            ``(groups,)``, for :class:`nysact.NysAct` also ``trace_captured`` (a share of the
            trace, 0 before the first refresh) and ``tail`` (both ``(groups,)``); ``damping``,
            ``refresh_age`` (steps, ``None`` before the first refresh) and ``failures`` (in a row).
        """
        known = {name: self.engine.diagnostics(layer) for name, layer in self.layers.items()}
        if not flat:
            return known
        return {f"{n}/{k}": v for n, each in known.items() for k, v in numbers(each).items()}

    def summary(self) -> str:
        """Describe in a few lines what is preconditioned, what is not and why, and the updates.

        Returns:
            Lines to print.
        """
        coverage = coverage_of(self.engine.distinct, self.param_groups)
        lines = [
            f"{type(self).__name__}: {len(self.engine.distinct)} layers preconditioned, "
            f"{coverage.share:.1%} of {coverage.total:,} weights"
        ]
        lines += [f"  plain update: {line}" for line in by_reason(self.skipped, coverage.left)]
        for index, group in enumerate(self.param_groups):
            shown = {name: group[name] for name in self._SHOWN if name in group}
            settings = ", ".join(f"{name}={value}" for name, value in shown.items())
            lines.append(f"  group {index}: {len(group['params'])} parameters, {settings}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        group = self.param_groups[0]
        changed = {
            name: group[name]
            for name, option in self._options.items()
            if name == "lr" or (option.grouped and group[name] != option.default)
        }
        settings = "".join(f"{name}={value!r}, " for name, value in changed.items())
        layers, groups = len(self.engine.distinct), len(self.param_groups)
        return f"{type(self).__name__}({settings}{layers} layers, {groups} parameter groups)"

    def remove_hooks(self) -> None:
        """Remove all hooks from the model; the current factors stay as they are."""
        self.engine.remove_hooks()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ignore every forward inside the block."""
        before = self.engine.capture.paused
        self.engine.pause(paused=True)
        try:
            yield
        finally:
            self.engine.pause(paused=before)
