"""Saving and loading an optimizer: all of its state, or nothing."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from nysact.optim import checkpoint
from nysact.optim.inspection import InspectableOptimizer
from nysact.optim.settings import Option
from nysact.optim.watch import Watch


class SavedOptimizer(InspectableOptimizer):
    """An optimizer whose state dict holds the tensors of its layers."""

    _grouped: Mapping[str, Option]
    _watch: Watch

    @torch.no_grad()
    def consolidate(self) -> None:
        """Add up what the processes captured since the last refresh; call it on all of them.

        A state dict taken right after holds the statistics of all processes, so that a run that
        is resumed from it ends with the bits of an undisturbed one. Without it the state dict
        lacks those since the last refresh. In one process there is nothing to do.
        """
        self.engine.consolidate()

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Do what :meth:`consolidate` does, by the name that Lightning calls before it saves."""
        self.consolidate()

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes, as in ``torch.optim``; alike on all ranks."""
        if self.engine.unreduced:
            warnings.warn(
                f"the state dict of step {self.param_groups[0]['step']} lacks the statistics "
                "since the last refresh, which the processes have not added up yet: for a run that "
                "resumes exactly, call optimizer.consolidate() on all processes first, or use "
                "nysact.integrations",
                stacklevel=2,
            )
        return super().state_dict()

    @torch.inference_mode(mode=False)
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state; nothing is changed if it doesn't fit.

        Args:
            state_dict: What :meth:`state_dict` returned, on any device.

        Raises:
            ValueError: If it was saved for another model, other groups, or another rank or
                sketch.
        """
        state_dict = checkpoint.clean(state_dict, name := type(self).__name__)
        expected = {layer.weight: self.engine.state(layer) for layer in self.engine.distinct}
        groups, state, before = self.param_groups, self.state, self.engine.snapshots()
        states = checkpoint.match(state_dict, name, groups, self._grouped, expected)
        try:
            super().load_state_dict(state_dict)
            # torch casts every tensor to its parameter's dtype: take the originals.
            self._take(states)
        except BaseException:
            self.param_groups, self.state, began = groups, state, bool(state)
            self._take(before)
            if not began:
                self.state.clear()
            raise

    def _take(self, states: Mapping[Any, Mapping[str, Any]]) -> None:
        """Take over the tensors of the layers, by weight, and groups that were loaded."""
        self.engine.regroup(self.param_groups)
        self.engine.load({param: state for param, state in states.items() if "rows" in state})
        self.engine.publish(self.state)
        checkpoint.shard_buffers(self.state)
        self._watch = Watch(self.param_groups, self._grouped)

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied: a copy would not observe the model."""
        raise TypeError(
            f"a {type(self).__name__} can't be copied or pickled, its hooks are on the model: save "
            "optimizer.state_dict() and load it into a new optimizer"
        )
