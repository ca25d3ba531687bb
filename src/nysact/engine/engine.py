"""The steps of an optimizer before its update: capture, reduce, refresh, apply."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any

from torch import Tensor

from nysact.curvature import Curvature, Tensors
from nysact.distributed import Processes, join_blocks, local
from nysact.engine.capture import Capture
from nysact.engine.discovery import Discovery
from nysact.engine.layer import Layer
from nysact.engine.layer_group import LayerGroup, group_key
from nysact.engine.sharing import shared_factors
from nysact.engine.statistics import without_autocast
from nysact.torch_private import labelled

Due = Mapping[LayerGroup, list[bool]]


class Engine:
    """Captures the inputs of a model's layers and preconditions their gradients."""

    def __init__(
        self,
        discovery: Discovery,
        build: Callable[[Layer], Curvature],
        processes: Processes,
        *,
        share_refresh: bool | None = None,
    ) -> None:
        self.layers = discovery.layers  # by module name
        # Each layer once, however many modules share it.
        self.distinct = list(dict.fromkeys(self.layers.values()))
        self.processes = processes
        self.capture = Capture(discovery.modules)
        self._build = build
        self._share_refresh = share_refresh
        self._agreed = False
        self._dropped: dict[str, str] = {}  # names of layers that are preconditioned no more: why
        self._stale: dict[Tensor, Tensors] = {}  # their weights, and what their state shows
        self._reported: set[Layer] = set()
        self._published: dict[Layer, Tensors] = {}
        self.load({})

    # --- a step ------------------------------------------------------------------------------

    def step(self, update: Callable[[dict[Tensor, Tensor]], None]) -> None:
        """Capture, reduce, refresh, apply; then ``update`` takes the gradients by parameter."""
        self.processes.check_alone()
        self.follow_model()
        with without_autocast(self._groups[0].device.type):
            with labelled("nysact.capture"):
                due = self._commit()
            with labelled("nysact.reduce"):
                self._reduce(due)
            with labelled("nysact.refresh"):
                self._refresh(due)
            with labelled("nysact.apply"):
                preconditioned: dict[Tensor, Tensor] = {}
                for group in self._groups:
                    group.precondition(preconditioned)
        with labelled("nysact.update"):
            update(preconditioned)

    def begin_step(self) -> None:
        self.capture.begin_step(self._groups)

    def follow_model(self) -> None:
        """Regroup after a bias was frozen or thawed, the model moved, or a setting changed."""
        gone = {hook.layer: True for hook in self.capture.hooks if not hook.is_current()}
        if gone:
            self._drop(gone)
        elif all(group.fits() for group in self._groups):
            return
        for group in self._groups:
            group.failures.report()
        kept = [each for each in self.distinct if self._group_of[each].keeps_state]
        self.load({layer.weight: self._group_of[layer].snapshot(layer) for layer in kept})

    def _drop(self, layers: Collection[Layer]) -> None:
        """Leave layers to the plain update, and say so."""
        self._warn(
            layers,
            "had their weights pruned or parametrised since the optimizer was built, and get the "
            "plain update from now on",
            "To precondition them again, build the optimizer once the model is as it was.",
        )
        why = "its weight was pruned or parametrised after the optimizer was built"
        self._dropped |= {name: why for name, layer in self.layers.items() if layer in layers}
        self._stale |= {layer.weight: self.state(layer) for layer in layers}
        self.capture.drop(layers)
        self.layers = {n: layer for n, layer in self.layers.items() if layer not in layers}
        self.distinct = [layer for layer in self.distinct if layer not in layers]
        if not self.distinct:
            raise RuntimeError(
                "no layer is left to precondition, since all weights were pruned or parametrised: "
                "build the optimizer again with the model as it is"
            )

    def _commit(self) -> Due:
        """Add the step's statistics to the running ones; return what is to be refreshed."""
        together, due = bool(self.processes), {}
        if together:
            self._agree()
        for group in self._groups:
            capturing = group.window.capturing
            # Which steps reduce depends on their number alone: it is the same on all ranks.
            if not (group.takes_statistics if together else capturing):
                continue
            if capturing:
                group.adopt()
            flags = group.due()
            if any(flags):
                group.failures.report()
                due[group] = flags
            group.commit() if capturing else group.running.decay()
        self._warn_of_missing()
        return due

    def _reduce(self, groups: Collection[LayerGroup]) -> None:
        """Sum the statistics of all ranks."""
        if not (self.processes and groups):
            return
        rank, ranks = self.processes.index, self.processes.count
        terms = [
            group.running.contribution(rank, ranks, present=group.window.capturing)
            for group in groups
        ]
        self.processes.sum(list(chain.from_iterable(terms)))
        for group in groups:
            group.running.accept_reduction()

    def _refresh(self, due: Due) -> None:
        """Compute new factors, here or divided between the ranks."""
        computed = shared_factors(list(due), self.processes, self._share_refresh)
        for (group, flags), factors in zip(due.items(), computed, strict=True):
            group.refresh(flags, factors)

    # --- several processes -------------------------------------------------------------------

    def _agree(self) -> None:
        """Before the first sum, check that all ranks are about to do the same."""
        if not self._agreed:
            for device in {group.device for group in self._groups}:
                self.processes.check_device(device)
            description = "\n".join(group.description for group in self._groups)
            self.processes.check_agreement(description, self._groups[0].device)
            self._agreed = True

    def consolidate(self) -> None:
        """Reduce what the ranks captured since the last reduction, without new factors."""
        if self.processes:
            self._agree()
            self._reduce(self._groups)

    @property
    def unreduced(self) -> bool:
        """Whether this rank has statistics that were not reduced yet."""
        return any(group.running.unreduced for group in self._groups)

    # --- calls that count, and that don't ----------------------------------------------------

    def discard(self) -> None:
        """Drop the statistics of the gradients that are about to be reset."""
        for layer in self.distinct:
            if layer.pending.window.is_open:
                layer.pending.discard()

    def pause(self, *, paused: bool) -> None:
        self.capture.pause(self._groups, paused=paused)

    def remove_hooks(self) -> None:
        """Remove all hooks; the factors stay as they are."""
        self.capture.remove()
        self.begin_step()

    @property
    def skipped(self) -> dict[str, str]:
        """Name to reason, of layers that turned out to get the plain update."""
        uncalled = {
            name: "its weight got a gradient, but no call of the module was observed"
            for name, layer in self.layers.items()
            if layer in self._reported and not layer.pending.was_called
        }
        return self._dropped | uncalled

    def _warn_of_missing(self) -> None:
        """Warn, once each, of layers with gradients that bring no statistics."""
        uncalled = [
            layer
            for layer in self.distinct
            if layer.pending.window.capturing
            and layer.pending.has_gradient
            and not (layer.pending.was_called or self.capture.was_paused)
        ]
        self._warn(
            uncalled,
            "got a gradient, but no call of their modules was observed, so that they have no "
            "statistics and get the plain update",
            "If another module uses their weights without calling them, leave them out with "
            "exclude= or register an adapter for that module. If the model was compiled and run "
            "before the optimizer was built, call torch.compiler.reset() after building it.",
        )
        self._warn(
            [layer for group in self._groups for layer in group.without_data()],
            "had gradients for two windows, but none that came from an observed call, so that "
            "they have no factors and get the plain update",
            "The likely cause is that their forwards run inside paused(), under torch.func, or in "
            "a copy of the model, or that their gradients are set by hand.",
        )

    def _warn(self, layers: Collection[Layer], what: str, remedy: str) -> None:
        new = [layer for layer in layers if layer not in self._reported]
        self._reported.update(new)
        if new:
            more = f" and {len(new) - 6} more" if len(new) > 6 else ""
            names = ", ".join(repr(layer.name) for layer in new[:6])
            warnings.warn(f"{len(new)} layer(s) {what}: {names}{more}. {remedy}", stacklevel=2)

    # --- state -------------------------------------------------------------------------------

    def inverse(self, layer: Layer) -> Tensor:
        """The dense preconditioner of a layer."""
        return self._group_of[layer].factors.inverse(layer.pending.index)

    def diagnostics(self, layer: Layer) -> dict[str, Any]:
        """Describe a layer's factors."""
        return self._group_of[layer].factors.diagnostics(layer.pending.index)

    def state(self, layer: Layer) -> Tensors:
        """A layer's tensors, local to this rank."""
        return self._group_of[layer].state(layer)

    def publish(self, state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Show the layers' tensors in ``optimizer.state``."""
        for weight, tensors in self._stale.items():
            for name in tensors:
                state[weight].pop(name, None)
        self._stale.clear()
        for group in self._groups:
            first = group.layers[0]
            if self._published.get(first) is group.state(first) and "rows" in state[first.weight]:
                continue
            self._published[first] = group.state(first)
            for layer in group.layers:
                # Where ranks hold blocks of a layer's inputs, as parts of common tensors.
                tensors = group.state(layer)
                state[layer.weight].update(
                    join_blocks(tensors, layer.weight, layer.shard.block_dim)
                )

    def snapshots(self) -> dict[Tensor, Tensors]:
        """Weight to the tensors of its layer, for :meth:`load`."""
        return {layer.weight: self._group_of[layer].snapshot(layer) for layer in self.distinct}

    def regroup(self, param_groups: Iterable[dict[str, Any]]) -> None:
        """Follow parameter groups that were replaced by others of the same parameters."""
        owner = {param: group for group in param_groups for param in group["params"]}
        for layer in self.distinct:
            layer.group = owner[layer.weight]

    def load(self, states: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        """Group layers of one shape, take over their tensors where they fit, and begin a step."""
        members: dict[Any, list[Layer]] = {}
        for layer in self.distinct:
            members.setdefault(group_key(layer), []).append(layer)
        queue, reduced = self.capture.queue, bool(self.processes)
        self._groups = [
            LayerGroup(layers, self._build(layers[0]), queue, reduced=reduced)
            for layers in members.values()
        ]
        self._group_of = {layer: group for group in self._groups for layer in group.layers}
        self._agreed = False
        for layer in self.distinct:
            here = {name: local(value) for name, value in states.get(layer.weight, {}).items()}
            empty = self.state(layer)
            if all(name in here and here[name].shape == v.shape for name, v in empty.items()):
                self._group_of[layer].load(layer, here)
        self.begin_step()
