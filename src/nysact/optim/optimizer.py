"""What the optimizers have in common: their face, their groups, their state."""

import warnings
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nysact.curvature import Curvature
from nysact.distributed import (
    Processes,
    check_no_join,
    find_processes,
    is_sharded,
    local_gradient,
    refuse_join,
    shard_like,
    wrapper_of,
)
from nysact.engine import Discovery, Engine, Layer, unwrap
from nysact.optim import checkpoint
from nysact.optim.assignment import assign, divide
from nysact.optim.documentation import documentation_of, signature_of
from nysact.optim.groups import name_group, named_groups, names_of
from nysact.optim.settings import (
    MuonOptions,
    Option,
    check_group,
    options_of,
    unknown_name,
)
from nysact.torch_private import disable_dynamo
from nysact.updates import (
    BUFFERS,
    adamw_update,
    clip_step,
    init_buffers,
    muon_update,
    sgd_update,
)

_BYPASSED = "its weight got a gradient, but no call of the module was observed"


class PreconditionedOptimizer(Optimizer):
    """An optimizer that captures the inputs of a model's layers."""

    _options: ClassVar[dict[str, Option]]

    def __init_subclass__(
        cls, options: type | None = None, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Give a face its options, and from them its signature and its documentation."""
        super().__init_subclass__()
        if options is None:
            return
        cls._options = options_of(options, defaults or {})
        cls.__signature__ = signature_of(cls._options)  # type: ignore[attr-defined]
        cls.__doc__ = documentation_of(cls.__doc__ or "", cls._options)

    def __init__(self, model: nn.Module, params: Any = None, **options: Any) -> None:
        wrapped, model = model, unwrap(model)
        unknown = unknown_name(options, self._options)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {unknown}")
        values = {name: options.get(name, each.default) for name, each in self._options.items()}
        for name, option in self._options.items():
            option.check(name, values[name])
        self._alone = {name: v for name, v in values.items() if not self._options[name].grouped}
        defaults = {name: v for name, v in values.items() if name not in self._alone}
        defaults["precondition"] = True
        self._group_options = {n: o for n, o in self._options.items() if n not in self._alone}
        named = named_groups(model, params)
        self._assigned = assign(model) if "update" in defaults else {}
        self._layouts = {p: each.layout for p, each in self._assigned.items() if each.layout}
        self._reasons: dict[Tensor, str] = {}
        groups = self._by_update(named, defaults)
        for group in [{}, *groups]:
            check_group({**defaults, **group}, self._group_options)
        self._processes = find_processes(wrapped, self._alone["process_group"])
        wrapper = wrapper_of(wrapped)
        self._wrapper = None if wrapper is None else weakref.ref(wrapper)
        self._warned = False
        self._model = weakref.ref(model)
        self._engine: Engine | None = None
        super().__init__(groups, defaults)
        for group in self.param_groups:
            group["step"] = 0
        self._start(model)

    def _start(self, model: nn.Module) -> None:
        """Observe the layers that the groups cover."""
        found = Discovery(
            model,
            self.param_groups,
            self._alone["exclude"],
            outputs=self._curvature(self.param_groups[0]).observes_outputs,
            ranks=self._processes.ranks,
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
            share_refresh=self._alone["share_refresh"],
        )

    def _by_update(
        self, groups: Sequence[dict[str, Any]], defaults: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Divide groups whose update is Muon by default; note why each parameter has its update."""
        divided, reasons = divide(groups, self._assigned, defaults.get("update"), self._adamw())
        self._reasons.update(reasons)
        return divided

    def _adamw(self) -> dict[str, Any]:
        """Settings of AdamW for the parameters that Muon leaves out."""
        names = {name: name.removeprefix("adamw_") for name in MuonOptions.__annotations__}
        known = options_of(MuonOptions, self._alone)
        return {short: known[name].default for name, short in names.items()}

    @property
    def updates(self) -> Mapping[str, str]:
        """Parameter name to its update and the reason, such as ``"adamw: an embedding"``."""
        return {
            name: f"{group['update']}: {self._reasons[param]}"
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
        }

    @abstractmethod
    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        """Build the approximation that a parameter group asks for."""

    def _update(self, gradients: dict[Tensor, Tensor]) -> None:
        """Feed the preconditioned gradients, parameter to gradient, to the groups' updates."""
        if self._alone["kl_clip"] is not None:
            clipped = [group for group in self.param_groups if group["update"] == "sgd"]
            clip_step(clipped, gradients, self._alone["kl_clip"])
        for group in self.param_groups:
            if group["update"] == "muon":
                muon_update(group, gradients, self.state, self._layouts, self._sharers)
            else:
                elementwise = sgd_update if group["update"] == "sgd" else adamw_update
                elementwise(group, gradients, self.state)

    @property
    def _sharers(self) -> Processes:
        """The processes that divide the orthogonalisation of replicas between them."""
        return self._processes if self._alone["share_refresh"] else Processes()

    def _init_state(self) -> None:
        """Create what a first step creates in the state, factors apart."""
        for group in self.param_groups:
            init_buffers(group, self.state)

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
        bypassed = self.engine.bypassed
        found = {n: _BYPASSED for n, layer in self.engine.layers.items() if layer in bypassed}
        return {**self._skipped, **found}

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

    # --- hooks -------------------------------------------------------------------------------

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

    def join_hook(self, **kwargs: Any) -> NoReturn:
        """Refuse to take part in ``torch.distributed.algorithms.Join``."""
        refuse_join()

    # --- groups and state --------------------------------------------------------------------

    @torch.no_grad()
    def consolidate(self) -> None:
        """Add up what the processes captured since the last refresh; call it on all of them.

        A state dict taken right after holds the statistics of all processes, so that a run that
        is resumed from it ends with the bits of an undisturbed one. Without it the state dict
        lacks those since the last refresh. In one process there is nothing to do.
        """
        self.engine.consolidate()

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes, as in ``torch.optim``; alike on all ranks."""
        if self.engine.unreduced and not self._warned:
            self._warned = True
            warnings.warn(
                "the state dict lacks the statistics since the last refresh, which the processes "
                "have not added up yet: for a run that resumes exactly, call "
                "optimizer.consolidate() on all processes first",
                stacklevel=2,
            )
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state; nothing is changed if it doesn't fit.

        Args:
            state_dict: What :meth:`state_dict` returned, on any device.

        Raises:
            ValueError: If it was saved for another model, other groups, or another rank or
                sketch.
        """
        state_dict = checkpoint.without_gaps(state_dict)
        expected = {layer.weight: self.engine.state(layer) for layer in self.engine.distinct}
        states = checkpoint.match(state_dict, self.param_groups, expected)
        for group in state_dict["param_groups"]:
            check_group({**self.defaults, **group}, self._group_options)
        super().load_state_dict(state_dict)
        self.engine.regroup(self.param_groups)
        # torch casts every tensor to its parameter's dtype: take the originals.
        self.engine.load({param: state for param, state in states.items() if "rows" in state})
        self.engine.publish(self.state)
        for param, state in self.state.items():
            for name in BUFFERS if is_sharded(param) else ():
                if state.get(name) is not None:
                    state[name] = shard_like(state[name], param)

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
        seen = {param for group in self.param_groups for param in group["params"]}
        groups = self._by_update([name_group(param_group, names_of(model), seen)], self.defaults)
        for group in groups:
            check_group({**self.defaults, **group}, self._group_options)
        for group in groups:
            super().add_param_group(group)
            self.param_groups[-1]["step"] = self.param_groups[0]["step"]
        before, states = self.engine.capture, self.engine.snapshots()
        observing = before.remove.alive
        before.remove()
        self._start(model)
        self.engine.load(states)
        self.engine.pause(paused=before.paused)
        if not observing:
            self.remove_hooks()

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied: a copy would not observe the model."""
        raise TypeError(
            f"a {type(self).__name__} can't be copied or pickled, its hooks are on the model: save "
            "optimizer.state_dict() and load it into a new optimizer"
        )

    @disable_dynamo
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients to ``None`` or zeros, and drop the statistics that belong to them."""
        self.engine.discard()
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
            closure: Evaluates the model again and returns the loss.

        Returns:
            The closure's loss, or ``None``.
        """
        if self._processes and self._wrapper is not None:
            check_no_join(self._wrapper())
        if closure is None and self._only_initialises():
            self._init_state()
            self.engine.publish(self.state)
            return None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.engine.step(self._update)
        for group in self.param_groups:
            group["step"] += 1
        self.engine.publish(self.state)
        self.engine.begin_step()
        return loss

    def _only_initialises(self) -> bool:
        """Whether this is the step without a forward with which ``get_state_dict`` begins."""
        # Learning rates and gradients are zero then. If it counted, the first factors would come a
        # window late.
        if self.state or any(layer.pending.was_called for layer in self.engine.distinct):
            return False
        if any(float(group.get("lr", 0.0)) for group in self.param_groups):
            return False
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        return not any(bool(local_gradient(param).any()) for param in params)


def _call(method: weakref.WeakMethod[Callable[..., Curvature]], group: dict[str, Any]) -> Curvature:
    bound = method()
    assert bound is not None
    return bound(group)
