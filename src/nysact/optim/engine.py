"""When statistics are taken and factors refreshed."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from nysact.curvature import Curvature, Shape
from nysact.distributed import (
    Processes,
    Sum,
    join_blocks,
    local,
    placement_of,
)
from nysact.optim.backlog import Backlog, uncast
from nysact.optim.discovery import Discovery
from nysact.optim.layer import CaptureHook, GradientHooks, Layer, OutputHook, settings_of
from nysact.optim.shared_refresh import pays, refresh_together
from nysact.optim.stack import LayerStack

State = Mapping[Tensor, dict[str, Any]]


class Engine:
    """Observes a model's layers and preconditions their gradients.

    Args:
        discovery: The layers.
        curvature: Gives the approximation for a parameter group.
        processes: Those that share each batch.
        shared: Whether they share the factorisations too, ``None`` for where that pays.
    """

    def __init__(
        self,
        discovery: Discovery,
        curvature: Callable[[dict[str, Any]], Curvature],
        processes: Processes,
        *,
        shared: bool | None = None,
    ) -> None:
        self.layers = discovery.layers
        self.paused = self._was_paused = False
        self.processes = processes
        self._curvature = curvature
        self._shared = shared
        self._agreed = False
        self._backlog = Backlog()
        self._wrapped: dict[Layer, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = {}
        self._distinct = list(dict.fromkeys(self.layers.values()))
        self._stacks = self._build({})
        self._handles = [
            module.register_forward_pre_hook(CaptureHook(layer, adapter), with_kwargs=True)
            for module, layer, adapter in discovery.modules
        ]
        if any(stack.observes_outputs for stack in self._stacks):
            self._handles += [
                module.register_forward_hook(OutputHook(layer, adapter), with_kwargs=True)
                for module, layer, adapter in discovery.modules
            ]
        self._watches: list[Any] = []
        # The hooks go with the engine, whether it is told to let go or just forgotten.
        self.remove_hooks = weakref.finalize(self, _remove, self._handles, self._watches)
        self.remove_hooks.atexit = False
        self.arm()

    def distinct(self) -> list[Layer]:
        """List each layer once, however many modules share it.

        Returns:
            The layers in the model's order.
        """
        return self._distinct

    def _build(self, known: Mapping[Layer, dict[str, Tensor]]) -> list[LayerStack]:
        """Stack layers of one shape; states that still fit are carried over."""
        batches: dict[Any, list[Layer]] = {}
        for layer in self.distinct():
            batches.setdefault(_kind(layer), []).append(layer)
        stacks = [self._stack(batch) for batch in batches.values()]
        self._agreed = False
        for layer, state in known.items():
            here = {name: local(value) for name, value in state.items()}
            fresh = layer.stack.state(layer)
            if all(name in here and here[name].shape == v.shape for name, v in fresh.items()):
                layer.stack.load(layer, here)
        return stacks

    def _stack(self, layers: list[Layer]) -> LayerStack:
        first = layers[0]
        groups, outputs = first.geometry.groups, first.geometry.out_features
        dim = first.geometry.in_features + first.has_bias
        stack = LayerStack(
            layers,
            self._curvature(first.group),
            Shape(groups, dim, min(first.group.get("rank", dim), dim), outputs),
            bias=first.has_bias,
            dtype=first.statistic_dtype,
            backlog=self._backlog,
            reduced=bool(self.processes),
        )
        if first.weight.device.type != "meta":
            stack.to(first.weight.device, first.statistic_dtype)
        return stack

    # --- a step ------------------------------------------------------------------------------

    def update(self) -> None:
        """Take in the statistics of the forwards since the last step; refresh what is due.

        Raises:
            RuntimeError: If a layer's factorisation keeps failing.
        """
        self.processes.check_alone()
        self._follow_parameters()
        if self.processes:
            with uncast(self._stacks[0].device.type):
                self._update_together()
            return
        listening = [stack for stack in self._stacks if stack.listening]
        if listening:
            self._find_bypassed()
        for stack in listening:
            step = stack.group["step"]
            with uncast(stack.device.type):
                stack.verdict.report()
                stack.commit()
                due = stack.due(step)
                if any(due):
                    stack.refresh(due, step)

    def _update_together(self) -> None:
        """Do the same with other processes; which steps reduce, the number of steps says alone."""
        self._agree()
        stacks = [stack for stack in self._stacks if stack.takes_statistics]
        due = [stack for stack in stacks if any(stack.due(stack.group["step"]))]
        for stack in due:
            # By now it has long arrived, and all processes find the same at the same step.
            stack.verdict.report(wait=True)
        for stack in stacks:
            if stack.listening:
                stack.commit()
            else:
                stack.totals.fade()
        pending = self._start_reducing(due) if due else None
        if any(stack.listening for stack in stacks):
            self._find_bypassed()
        if pending is None:
            return
        pending.wait()
        for stack in due:
            stack.totals.take_in()
        shared = self._shared
        if shared is None:
            shared = pays(due, len(self.processes.ranks))
        refresh_together(due, self.processes if shared else Processes())

    def _agree(self) -> None:
        """Before the first sum, make sure that all processes are about to do the same."""
        if not self._agreed:
            for device in {stack.device for stack in self._stacks}:
                self.processes.check_device(device)
            description = "\n".join(stack.description for stack in self._stacks)
            self.processes.check_agreement(description, self._stacks[0].device)
            self._agreed = True

    def _start_reducing(self, stacks: Sequence[LayerStack]) -> Sum:
        """Begin to add up the statistics of all processes."""
        place = self.processes.index, self.processes.count
        terms = [t for s in stacks for t in s.totals.contribution(place, present=s.listening)]
        return self.processes.start_sum(terms)

    def consolidate(self) -> None:
        """Reduce what the processes have seen since the last reduction, without new factors."""
        if self.processes:
            self._agree()
            self._start_reducing(self._stacks).wait()
            for stack in self._stacks:
                stack.totals.take_in()

    @property
    def ahead(self) -> bool:
        """Whether this process has statistics that were not reduced yet."""
        return any(stack.totals.ahead for stack in self._stacks)

    def _find_bypassed(self) -> None:
        """Warn, once each, of layers that got a gradient without an observed call."""
        found = [
            layer
            for layer in self.distinct()
            if layer.stack.listening and layer.touched and not (layer.called or layer.bypassed)
        ]
        if not found or self._was_paused:
            return
        for layer in found:
            layer.bypassed = True
        names = [layer.name for layer in found]
        warnings.warn(
            f"{len(names)} layer(s) got a gradient, but no call of their modules was observed, so "
            f"that they have no statistics and get the plain update: {_listed(names)}. If another "
            "module uses their weights without calling them, leave them out with exclude= or "
            "register an adapter for that module. If the model was compiled and run before the "
            "optimizer was built, call torch.compiler.reset() once it is.",
            stacklevel=2,
        )

    def precondition(self) -> dict[Tensor, Tensor]:
        """Precondition the gradients of all layers.

        Returns:
            Parameter to preconditioned gradient, for those that have a gradient.
        """
        parts: dict[Tensor, Tensor] = {}
        for stack in self._stacks:
            with uncast(stack.device.type):
                parts.update(stack.precondition())
        return parts

    def discard_stale(self) -> None:
        """Drop the statistics whose gradients are about to be dropped, of a skipped step say."""
        for layer in self.distinct():
            if layer.reached:
                layer.stack.observed.discard(layer)
            elif layer.settled:
                layer.stack.observed.discard_settled(layer)

    def arm(self) -> None:
        """Listen to the next forwards if the step they lead to takes statistics."""
        self._was_paused = self.paused
        _remove(self._watches)
        self._watches.clear()
        self._backlog.drop()
        for stack in self._stacks:
            due = stack.group["step"] % stack.group["cov_interval"] == 0
            stack.listening = due and not self.paused and self.remove_hooks.alive
            if due:
                stack.open()
                self._watch_gradients(stack.layers)
            else:
                stack.observed.close()

    def _watch_gradients(self, layers: Iterable[Layer]) -> None:
        """Hook the weights that need a gradient, in steps with statistics alone."""
        if self.remove_hooks.alive:
            for layer in layers:
                if layer.weight.requires_grad:
                    self._watches += GradientHooks(layer).handles

    def pause(self, *, paused: bool) -> None:
        """Stop or go on observing.

        Args:
            paused: Whether forwards are ignored from now on.
        """
        self.paused = paused
        self._was_paused |= paused
        for stack in self._stacks:
            due = stack.group["step"] % stack.group["cov_interval"] == 0
            stack.listening = due and not paused and self.remove_hooks.alive

    # --- state -------------------------------------------------------------------------------

    def publish(self, state: State) -> None:
        """Show the layers' tensors in the optimizer's state.

        Args:
            state: ``optimizer.state``.
        """
        for layer in self.distinct():
            tensors, shown = self._shown(layer), state[layer.weight]
            if shown.get("mass") is not tensors["mass"]:
                shown.update(tensors)

    def _shown(self, layer: Layer) -> Mapping[str, Tensor]:
        """A layer's tensors, as parts of those that all blocks of its weight have together."""
        tensors = layer.stack.state(layer)
        if layer.part.block_dim is None:
            return tensors
        known, wrapped = self._wrapped.get(layer, (None, tensors))
        if known is not tensors:
            wrapped = join_blocks(tensors, layer.weight, layer.part.block_dim)
            self._wrapped[layer] = tensors, wrapped
        return wrapped

    def states(self) -> dict[Tensor, dict[str, Tensor]]:
        """Give the layers' tensors.

        Returns:
            Weight to the tensors of its layer.
        """
        return {layer.weight: layer.stack.keep(layer) for layer in self.distinct()}

    def regroup(self, groups: Iterable[dict[str, Any]]) -> None:
        """Follow parameter groups that were replaced by others of the same parameters.

        Args:
            groups: The groups now in force.
        """
        of = {param: group for group in groups for param in group["params"]}
        for layer in self.distinct():
            layer.group = of[layer.weight]

    def load(self, states: Mapping[Tensor, dict[str, Tensor]]) -> None:
        """Take over the layers' tensors, where they still fit.

        Args:
            states: Weight to the tensors of its layer.
        """
        layers = [layer for layer in self.distinct() if layer.weight in states]
        self._stacks = self._build({layer: states[layer.weight] for layer in layers})
        self.arm()

    def _follow_parameters(self) -> None:
        """Stack anew after a bias was frozen or thawed, the model moved, or a setting changed."""
        changed = any(stack.settings != settings_of(stack.group) for stack in self._stacks)
        if not changed and all(layer.stack.fits(layer) for layer in self.distinct()):
            return
        for stack in self._stacks:
            stack.verdict.report(wait=bool(self.processes))
        known = {
            layer: layer.stack.keep(layer)
            for layer in self.distinct()
            if settings_of(layer.group)[:3] == layer.stack.settings[:3]
        }
        self._stacks = self._build(known)
        self.arm()


def _remove(*lists: list[Any]) -> None:
    for handles in lists:
        for handle in handles:
            handle.remove()


def _listed(names: list[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(repr, names[:shown])) + more


def _kind(layer: Layer) -> tuple[Any, ...]:
    """What the layers of one stack have in common."""
    weight, group = layer.weight, layer.group
    common = (id(group), layer.geometry, layer.has_bias, weight.dtype, weight.device)
    return (*common, placement_of(weight), settings_of(group))
