"""What the optimizers of this library have in common: their face, their groups, their state."""

from __future__ import annotations

import warnings
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nysact.curvature import Curvature
from nysact.distributed import (
    check_no_join,
    find_processes,
    is_sharded,
    local_gradient,
    refuse_join,
    shard_like,
    wrapper_of,
)
from nysact.optim import checkpoint
from nysact.optim.discovery import Discovery, clean_name, unwrap
from nysact.optim.engine import Engine
from nysact.optim.layer import Layer
from nysact.optim.settings import check_group, name_group, named_groups
from nysact.torch_private import disable_dynamo

if TYPE_CHECKING:
    from nysact.distributed import Group

_BYPASSED = "its weight got a gradient, but no call of the module was observed"


class PreconditionedOptimizer(Optimizer):
    """An optimizer that observes the inputs of a model's layers.

    Args:
        model: The model; its layers get forward hooks.
        params: As in :class:`nysact.NysAct`.
        defaults: Values of the parameter groups' options.
        exclude: Shell-style patterns of module names that are not preconditioned.
        process_group: As in :class:`nysact.NysAct`.
        share_refresh: As in :class:`nysact.NysAct`.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Any,
        defaults: dict[str, Any],
        exclude: Sequence[str],
        *,
        process_group: Group | Literal[False] | None = None,
        share_refresh: bool | None = None,
    ) -> None:
        wrapped, model = model, unwrap(model)
        if isinstance(exclude, str):
            raise TypeError(f"exclude={exclude!r} is a string, expected a sequence of patterns")
        defaults = {**defaults, "precondition": True}
        check_group(defaults, defaults)
        groups = named_groups(model, params)
        for group in groups:
            check_group({**defaults, **group}, defaults)
        self._processes = find_processes(wrapped, process_group)
        wrapper = wrapper_of(wrapped)
        self._wrapper = None if wrapper is None else weakref.ref(wrapper)
        self._share_refresh = share_refresh
        self._warned = False
        self._model = weakref.ref(model)
        self._exclude = tuple(exclude)
        self._engine: Engine | None = None
        super().__init__(groups, defaults)
        for group in self.param_groups:
            group["step"] = 0
        self._start(model)

    def _start(self, model: nn.Module) -> None:
        """Observe the layers that the groups cover."""
        outputs = self._curvature(self.param_groups[0]).observes_outputs
        found = Discovery(
            model, self.param_groups, self._exclude, outputs=outputs, processes=self._processes
        )
        if not found.layers:
            reasons = "; ".join(f"{name or 'model'}: {why}" for name, why in found.skipped.items())
            raise ValueError(f"no layer of the model can be preconditioned ({reasons:.500})")
        self._skipped = found.skipped
        # A weak one, so that the hooks go with the last reference to the optimizer.
        curvature = weakref.WeakMethod(self._curvature)
        self._engine = Engine(
            found,
            lambda group: _call(curvature, group),
            self._processes,
            shared=self._share_refresh,
        )

    @abstractmethod
    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        """Build the approximation that a parameter group asks for."""

    # --- what is known of the layers ---------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine; there is one as soon as the optimizer is built."""
        assert self._engine is not None
        return self._engine

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Module name to what is known of that preconditioned layer."""
        return dict(self.engine.layers)

    @property
    def skipped(self) -> Mapping[str, str]:
        """Module name to the reason why its parameters get the plain update.

        A layer of :attr:`layers` whose weight another module uses without calling it is here too,
        from the first step with statistics on.
        """
        bypassed = {n: _BYPASSED for n, layer in self.engine.layers.items() if layer.bypassed}
        return {**self._skipped, **bypassed}

    def inverse(self, name: str) -> Tensor:
        """Write out the preconditioner in force for a layer, for tests and plots.

        Args:
            name: The layer's name, a key of :attr:`layers`.

        Returns:
            The inverse that gradients are multiplied with from the right, ``(d, d)``, or
            ``(groups, d, d)`` for a grouped convolution; input features first and the bias last;
            the identity before the first refresh. Dtype of the statistics.

        Raises:
            KeyError: If no layer has this name.
        """
        layer = self._layer(name)
        return layer.stack.factors.inverse(layer)

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Describe what is in force for each layer.

        Returns:
            Layer name to ``rank``, ``eigenvalues`` (ascending, ``(groups, rank)``) and ``trace``
            ``(groups,)``, for :class:`nysact.NysAct` also ``trace_captured`` (a share of the
            trace, 0 before the first refresh) and ``tail`` (both ``(groups,)``); ``damping``,
            ``refresh_age`` (steps, ``None`` before the first refresh) and ``failures`` (in a row).
        """
        return {name: layer.stack.factors.diagnostics(layer) for name, layer in self.layers.items()}

    def _layer(self, name: str) -> Layer:
        if name not in self.engine.layers:
            why = self._skipped.get(name, f"expected one of {sorted(self.engine.layers)}")
            raise KeyError(f"no preconditioned layer is called {name!r}: {why}")
        return self.engine.layers[name]

    # --- hooks -------------------------------------------------------------------------------

    def remove_hooks(self) -> None:
        """Take all hooks off the model; the factors in force stay as they are."""
        self.engine.remove_hooks()
        self.engine.arm()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ignore every forward inside the block.

        Yields:
            Nothing.
        """
        before = self.engine.paused
        self.engine.pause(paused=True)
        try:
            yield
        finally:
            self.engine.pause(paused=before)

    # --- several processes -------------------------------------------------------------------

    @torch.no_grad()
    def consolidate(self) -> None:
        """Add up what the processes have seen since the last refresh; call it on all of them.

        A state dict taken right after holds the statistics of all processes, so that a run that
        is resumed from it goes on as if it had never stopped. Without it the state dict lacks
        those since the last refresh. In one process there is nothing to do.
        """
        self.engine.consolidate()

    def state_dict(self) -> dict[str, Any]:
        """Give what :meth:`load_state_dict` takes; the same on all processes.

        Returns:
            As in ``torch.optim``.
        """
        if self.engine.ahead and not self._warned:
            self._warned = True
            warnings.warn(
                "the state dict lacks the statistics since the last refresh, which the processes "
                "have not added up yet: for a run that resumes exactly, call "
                "optimizer.consolidate() on all processes first",
                stacklevel=2,
            )
        return super().state_dict()

    def join_hook(self, **kwargs: Any) -> NoReturn:
        """Refuse to take part in ``torch.distributed.algorithms.Join``."""
        refuse_join()

    def _wrapped(self) -> nn.parallel.DistributedDataParallel | None:
        return None if self._wrapper is None else self._wrapper()

    def _lasting_tensors(self) -> list[Tensor]:
        """What steps change of the state, statistics and factors apart."""
        return []

    # --- groups and state --------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; its layers are observed from now on, unless the others aren't.

        Args:
            param_group: ``"params"`` and options, as in ``torch.optim``.

        Raises:
            ValueError: If the optimizer holds a parameter already, the model lacks it, or an
                option is wrong.
        """
        if self._engine is None:
            super().add_param_group(param_group)
            return
        model = self._model()
        if model is None:
            raise ValueError("the model is gone: build the optimizer again with the new model")
        names: dict[Tensor, str] = {p: clean_name(name) for name, p in model.named_parameters()}
        seen = dict.fromkeys((p for group in self.param_groups for p in group["params"]), 0)
        group = name_group(param_group, names, seen)
        check_group({**self.defaults, **group}, self.defaults)
        super().add_param_group(group)
        self.param_groups[-1]["step"] = self.param_groups[0]["step"]
        before, states = self.engine, self.engine.states()
        observing = before.remove_hooks.alive
        before.remove_hooks()
        self._start(model)
        self.engine.load(states)
        self.engine.pause(paused=before.paused)
        if not observing:
            self.remove_hooks()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state; nothing is changed if it doesn't fit.

        Args:
            state_dict: What :meth:`state_dict` returned, on any device.

        Raises:
            ValueError: If it was saved for another model, other groups, or another rank or
                sketch.
        """
        state_dict = checkpoint.without_gaps(state_dict)
        states = checkpoint.match(state_dict, self.param_groups, self.engine.distinct())
        for group in state_dict["param_groups"]:
            check_group({**self.defaults, **group}, self.defaults)
        super().load_state_dict(state_dict)
        self.engine.regroup(self.param_groups)
        # The base class casts every tensor to its parameter's dtype: take the originals.
        self.engine.load({param: state for param, state in states.items() if "mass" in state})
        self.engine.publish(self.state)
        for param, state in self.state.items():
            if is_sharded(param) and state.get(checkpoint.MOMENTUM) is not None:
                state[checkpoint.MOMENTUM] = shard_like(state[checkpoint.MOMENTUM], param)

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied: a copy would not observe the model.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"a {type(self).__name__} can't be copied or pickled, its hooks sit on the model: save "
            "optimizer.state_dict() and load it into a new optimizer"
        )

    @disable_dynamo
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients; statistics that belong to them and to no step go too.

        Args:
            set_to_none: Whether they become ``None`` and not zeros.
        """
        self.engine.discard_stale()
        super().zero_grad(set_to_none)

    # --- a step ------------------------------------------------------------------------------

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Do one step.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            The closure's loss, or ``None``.
        """
        if self._processes:
            check_no_join(self._wrapped())
        if closure is None and self._only_initialises():
            self._lasting_tensors()
            self.engine.publish(self.state)
            return None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.engine.update()
        self._apply(self.engine.precondition())
        self._finish_step()
        return loss

    def _only_initialises(self) -> bool:
        """Whether this is the step without a forward with which ``get_state_dict`` begins."""
        # Learning rates and gradients are zero then. If it counted, the first factors would come a
        # window late.
        if self.state or any(layer.called for layer in self.engine.distinct()):
            return False
        if any(float(group.get("lr", 0.0)) for group in self.param_groups):
            return False
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        return not any(bool(local_gradient(param).any()) for param in params)

    def _finish_step(self) -> None:
        for group in self.param_groups:
            group["step"] += 1
        self.engine.publish(self.state)
        self.engine.arm()

    @abstractmethod
    def _apply(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Use the preconditioned gradients, parameter to gradient."""


def _call(method: weakref.WeakMethod[Callable[..., Curvature]], group: dict[str, Any]) -> Curvature:
    bound = method()
    assert bound is not None
    return bound(group)
