"""What an optimizer tells of the layers that it preconditions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nysact.engine import Engine, Layer
from nysact.optim.assignment import Assignments


class InspectableOptimizer(Optimizer):
    """An optimizer with an engine, whose layers and factors can be looked at."""

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

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Describe the current factors of each layer.

        Returns:
            Layer name to ``rank``, ``eigenvalues`` (ascending, ``(groups, rank)``) and ``trace``
            ``(groups,)``, for :class:`nysact.NysAct` also ``trace_captured`` (a share of the
            trace, 0 before the first refresh) and ``tail`` (both ``(groups,)``); ``damping``,
            ``refresh_age`` (steps, ``None`` before the first refresh) and ``failures`` (in a row).
        """
        return {name: self.engine.diagnostics(layer) for name, layer in self.layers.items()}

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
