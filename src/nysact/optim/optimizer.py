"""What the optimizers have in common: construction, a step, the parameter groups."""

import weakref
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from nysact.curvature import Curvature
from nysact.distributed import (
    Processes,
    check_no_join,
    find_processes,
    is_sharded,
    local_gradient,
    processes_pending,
    refuse_join,
    sharded_parameters,
    wrapper_of,
)
from nysact.engine import Discovery, Engine, unwrap
from nysact.optim.assignment import Assignments
from nysact.optim.coverage import coverage_of, warn_of_small
from nysact.optim.documentation import documentation_of, signature_of
from nysact.optim.groups import (
    check_group,
    check_together,
    name_group,
    named_groups,
    names_of,
    nearest,
    warn_of_misspelt,
)
from nysact.optim.process_search import ProcessSearch
from nysact.optim.settings import MuonOptions, options_of
from nysact.optim.state import SavedOptimizer
from nysact.optim.watch import Watch
from nysact.torch_private import disable_dynamo
from nysact.updates import adamw_update, clip_step, init_buffers, muon_update, sgd_update


class PreconditionedOptimizer(SavedOptimizer):
    """An optimizer that captures the inputs of a model's layers."""

    _model: weakref.ref[nn.Module] | None = None  # once the optimizer is built

    def __init_subclass__(
        cls, options: type | None = None, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Give a face its options, and from them its signature and its documentation."""
        super().__init_subclass__()
        if options is not None:
            cls._options = options_of(options, defaults or {})
            cls.__signature__ = signature_of(cls._options)  # type: ignore[attr-defined]
            cls.__doc__ = documentation_of(cls.__doc__ or "", cls._options)

    @torch.inference_mode(mode=False)
    def __init__(self, model: nn.Module, params: Any = None, **options: Any) -> None:
        if not isinstance(model, nn.Module):
            face = type(self).__name__
            raise TypeError(
                f"model is {type(model).__name__}, expected an nn.Module: write {face}(model) in "
                f"place of {face}(model.parameters()), and {face}(model, params) to train a part"
            )
        wrapped, model = model, unwrap(model)
        for name in options.keys() - self._options.keys():
            near = nearest(name, self._options)
            hint = f": did you mean {near!r}?" if near else f", expected one of {[*self._options]}"
            raise TypeError(f"{type(self).__name__} has no option {name!r}{hint}")
        values = {name: options.get(name, each.default) for name, each in self._options.items()}
        for name, option in self._options.items():
            option.check(name, values[name])
        self._grouped = {name: each for name, each in self._options.items() if each.grouped}
        self._alone = {name: v for name, v in values.items() if name not in self._grouped}
        defaults = {**{name: values[name] for name in self._grouped}, "precondition": True}
        rest = options_of(MuonOptions, self._alone)
        adamw = {name.removeprefix("adamw_"): option.default for name, option in rest.items()}
        self._assignments = Assignments(defaults.get("update"), adamw)
        check_together(defaults)
        groups = self._checked(model, named_groups(model, params), defaults, step=0)
        pending = processes_pending(wrapped, self._alone["process_group"])
        self._find_processes(None if pending else wrapped)
        super().__init__(groups, defaults)
        self._observe(self._discover(model))
        self._model = weakref.ref(model)
        self._search = ProcessSearch(model, self._follow_wrapper) if pending else None
        if not self._alone["exclude"] and all(g["precondition"] for g in self.param_groups):
            coverage = coverage_of(self.engine.distinct, self.param_groups)
            warn_of_small(type(self).__name__, coverage, self._skipped)

    def _checked(
        self,
        model: nn.Module,
        groups: Sequence[dict[str, Any]],
        defaults: Mapping[str, Any],
        *,
        step: int,
    ) -> list[dict[str, Any]]:
        """Groups of named parameters, completed, divided by their update and checked."""
        for group in groups:
            warn_of_misspelt(group, self._options)
        divided = self._assignments.divide(model, groups)
        # torch gives a group without parameters no names.
        own = {"step": step, "param_names": []}
        complete = [{**defaults, **group, **own} for group in divided]
        for group in complete:
            check_group(group, self._grouped)
        return complete

    def _discover(self, model: nn.Module) -> Discovery:
        """Find the layers that the groups cover."""
        groups, alone = self.param_groups, self._alone
        outputs = self._curvature({**alone, **groups[0], "convolves": False}).observes_outputs
        ranks = self._processes.ranks
        found = Discovery(model, groups, alone["exclude"], outputs=outputs, ranks=ranks)
        if not found.layers:
            reasons = "; ".join(f"{name or 'model'}: {why}" for name, why in found.skipped.items())
            raise ValueError(f"no layer of the model can be preconditioned ({reasons:.500})")
        return found

    def _observe(self, found: Discovery) -> None:
        """Capture the inputs of layers from now on."""
        # The engine holds no reference to the optimizer, so that the hooks go with the last one.
        build, alone = self._curvature, self._alone
        self._skipped = found.skipped
        self.engine = Engine(
            found,
            lambda layer: build({**alone, **layer.group, "convolves": layer.adapter.convolves}),
            self._processes,
            share_refresh=alone["share_refresh"],
        )
        self._watch = Watch(self.param_groups, self._grouped)

    def _find_processes(self, wrapped: nn.Module | None) -> None:
        """Look for the processes that share batches, unless the model is yet to be wrapped."""
        self._processes, self._wrapper = Processes(), None
        if wrapped is not None:
            self._processes = find_processes(wrapped, self._alone["process_group"])
            wrapper = wrapper_of(wrapped)
            self._wrapper = None if wrapper is None else weakref.ref(wrapper)

    def _follow_wrapper(self) -> None:
        """Sum over the processes of a model that was wrapped after the optimizer was built."""
        self._search, model = None, self._living_model()
        self._find_processes(model)
        self.engine.processes = self._processes
        if self._processes:
            with sharded_parameters(model):
                self._regroup(model)

    def _living_model(self) -> nn.Module:
        model = None if self._model is None else self._model()
        if model is None:
            raise ValueError("the model is gone: build the optimizer again with the new model")
        return model

    @staticmethod
    @abstractmethod
    def _curvature(options: Mapping[str, Any]) -> Curvature:
        """Build the approximation that the options of a layer ask for."""

    # --- a step ------------------------------------------------------------------------------

    @disable_dynamo
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            The closure's loss, or ``None``.
        """
        if self._processes and self._wrapper is not None:
            check_no_join(self._wrapper())
        if closure is None and self._only_initialises():
            self.engine.follow_model()
            self._init_state()
            self.engine.publish(self.state)
            return None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._search is not None:
            self._search.finish()
        self._follow_groups()
        try:
            self.engine.step(self._update)
        except BaseException:
            # Part of it may be done: show all there is, so that a state dict of it loads.
            self.engine.publish(self.state)
            raise
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

    def _update(self, gradients: dict[Tensor, Tensor]) -> None:
        """Feed the preconditioned gradients, parameter to gradient, to the groups' updates."""
        if self._alone["kl_clip"] is not None:
            clipped = [group for group in self.param_groups if group["update"] == "sgd"]
            clip_step(clipped, gradients, self._alone["kl_clip"])
        # Who divides the orthogonalisation of replicas.
        sharers = self._processes if self._alone["share_refresh"] else Processes()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params and group["update"] == "muon":
                layouts = self._assignments.layouts
                muon_update(group, params, gradients, self.state, layouts, sharers)
            elif params:
                elementwise = sgd_update if group["update"] == "sgd" else adamw_update
                elementwise(group, params, gradients, self.state)

    def _init_state(self) -> None:
        """Create what a first step creates in the state, factors apart."""
        for group in self.param_groups:
            init_buffers(group, self.state)

    @disable_dynamo
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients to ``None`` or zeros, and drop the statistics that belong to them."""
        self.engine.discard()
        super().zero_grad(set_to_none)

    def join_hook(self, **kwargs: Any) -> NoReturn:
        """Refuse to take part in ``torch.distributed.algorithms.Join``."""
        refuse_join()

    # --- parameter groups --------------------------------------------------------------------

    @torch.inference_mode(mode=False)
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; its layers are observed from now on, unless the others aren't.

        Args:
            param_group: ``"params"`` and options, as in ``torch.optim``.

        Raises:
            ValueError: If the optimizer holds a parameter already, the model lacks it, or an
                option is wrong.
        """
        if self._model is None:
            super().add_param_group(param_group)
            return
        model, seen = self._living_model(), set(self._watch.named().values())
        named = name_group(param_group, names_of(model), seen)
        for group in self._checked(model, [named], self.defaults, step=self._watch.step):
            super().add_param_group(group)
        self._restart(model, {})

    def _follow_groups(self) -> None:
        """Follow parameter groups that others replaced or changed since the last step."""
        self._watch.adopt(self.param_groups)
        if self._watch.is_regrouped(self.param_groups):
            self._regroup(self._living_model())
        self._watch.check()

    def _regroup(self, model: nn.Module) -> None:
        """Observe the layers of the groups and the model as they are now."""
        names, before, seen = names_of(model), self._watch.named(), set[Tensor]()
        if not all(names.keys() >= set(group["params"]) for group in self.param_groups):
            raise ValueError(
                "the parameters of the model or of the optimizer's groups were replaced, as "
                "fully_shard and master weights do: put the model's own into the groups, or build "
                "the optimizer again from the model as it is now"
            )
        for group in self.param_groups:
            named = name_group(group, names, seen)["params"]
            own = {"step": self._watch.step, "param_names": [name for name, _ in named]}
            group.update({**self.defaults, **group, **own, "params": [p for _, p in named]})
            check_group(group, self._grouped)
        self._assignments.check(model, self.param_groups)
        self._restart(model, {before[names[p]]: p for p in seen if names[p] in before})
        # A state dict has no place for the state of parameters that left.
        for gone in [p for p in self.state if isinstance(p, Tensor) and p not in seen]:
            del self.state[gone]

    def _restart(self, model: nn.Module, renamed: Mapping[Tensor, Tensor]) -> None:
        """Observe the layers that the groups cover now; what is known of the others is kept."""
        found, before, states = self._discover(model), self.engine.capture, self.engine.snapshots()
        for layer in self.engine.distinct:
            for name in self.engine.state(layer):
                self.state.get(layer.weight, {}).pop(name, None)
        for old, new in renamed.items():
            state = self.state.pop(old, {})
            if state and is_sharded(old) == is_sharded(new) and old.shape == new.shape:
                self.state[new] = state
        observing = before.remove.alive
        before.remove()
        self._observe(found)
        self.engine.load({renamed.get(weight, weight): s for weight, s in states.items()})
        if self.state:
            self.engine.publish(self.state)
        self.engine.pause(paused=before.paused)
        if not observing:
            self.remove_hooks()
