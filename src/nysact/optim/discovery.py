"""Which of a model's modules are preconditioned, and why the others aren't."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from nysact.distributed import Processes, is_sharded
from nysact.engine.local_shard import LocalShard, local_shard
from nysact.layers import Geometry, LayerAdapter, find_adapters
from nysact.optim.layer import DATA_PARALLEL, Layer
from nysact.torch_private import WRAPPER_NAMES, uncompiled

Modules = Sequence[tuple[str, nn.Module]]
Adapters = Sequence[list[LayerAdapter] | str]


def clean_name(name: str) -> str:
    """Take the names of wrappers out of a module's or parameter's name.

    Args:
        name: As ``named_modules`` or ``named_parameters`` gives it.

    Returns:
        The name in the model that the user wrote.
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPER_NAMES)


def unwrap(model: nn.Module) -> nn.Module:
    """Take the model out of ``DistributedDataParallel`` and refuse ``DataParallel``.

    Args:
        model: The model as the user has it.

    Returns:
        The model whose names are the user's own.

    Raises:
        TypeError: If the model isn't a module, or is or holds an ``nn.DataParallel``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is {type(model).__name__}, expected an nn.Module: pass the model itself and, "
            "if not all of its parameters are to be trained, params= beside it"
        )
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise TypeError(DATA_PARALLEL)
    wrapped = None
    while model is not wrapped:
        wrapped = model
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        model = uncompiled(model)
    return model


class Discovery:
    """The layers of a model that an optimizer's groups cover.

    Args:
        model: The model, unwrapped.
        groups: The optimizer's parameter groups.
        exclude: Shell-style patterns of names to leave out: of layers, or of modules with all
            that is inside them.
        outputs: Whether the gradients of outputs are to be observed too.
        processes: Those that share batches; by default there is this one alone.

    Attributes:
        layers: Name to layer; modules that share a weight share a layer.
        modules: Every module that is to be hooked, with its layer and its own adapter.
        skipped: Module name to the reason, for modules with parameters in the groups.

    Raises:
        ValueError: If a pattern matches no module.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Iterable[dict[str, Any]],
        exclude: Sequence[str],
        *,
        outputs: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self._outputs = outputs
        self._ranks = processes.ranks if processes is not None else frozenset[int]()
        self._groups = {param: group for group in groups for param in group["params"]}
        self._exclude = exclude
        self.layers: dict[str, Layer] = {}
        self.modules: list[tuple[nn.Module, Layer, LayerAdapter]] = []
        self.skipped: dict[str, str] = {}
        modules = [(clean_name(name), module) for name, module in model.named_modules()]
        adapters = [find_adapters(module) for _, module in modules]
        self._check_patterns(modules, adapters)
        self._uncalled = _uncalled(modules, adapters)
        self._other_uses = self._find_other_uses(modules, adapters)
        self._shared_biases = _shared_biases(modules, adapters)
        for (name, module), found in zip(modules, adapters, strict=True):
            if any(param in self._groups for param in module._parameters.values()):
                self._visit(name, module, found)
        self._warn_of_split_outputs()

    def _check_patterns(self, modules: Modules, adapters: Adapters) -> None:
        names = [name for name, _ in modules]
        for (name, _), found in zip(modules, adapters, strict=True):
            names += [] if isinstance(found, str) else [_layer_name(name, each) for each in found]
        for pattern in self._exclude:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"exclude pattern {pattern!r} matches no module: expected shell-style "
                    f"patterns of module names such as {names[-1]!r}"
                )

    def _excluding(self, name: str) -> str | None:
        """The pattern that leaves a layer out, by its own name or that of a module around it."""
        parts = name.split(".")
        names = [".".join(parts[: end + 1]) for end in range(len(parts))]
        matches = (p for p in self._exclude if any(fnmatch.fnmatchcase(n, p) for n in names))
        return next(matches, None)

    def _find_other_uses(self, modules: Modules, adapters: Adapters) -> dict[nn.Parameter, str]:
        """Parameters that some module uses in a way of its own, with what is said of that."""
        uses: dict[nn.Parameter, str] = {}
        layouts: dict[nn.Parameter, tuple[Any, Geometry]] = {}
        for (name, module), found in zip(modules, adapters, strict=True):
            way = f"shared with {name!r}, which uses it in another way"
            if isinstance(found, str) or name in self._uncalled:
                uses.update((p, way) for p in module._parameters.values() if p is not None)
                continue
            for adapter in found:
                weight = module._parameters[adapter.weight_name]
                assert weight is not None
                layout = (type(adapter).to_matrix, adapter.geometry(module))
                if layouts.setdefault(weight, layout) != layout:
                    uses[weight] = way
                if self._excluding(_layer_name(name, adapter)) is not None:
                    uses[weight] = f"shared with {name!r}, which is excluded"
        return uses

    def _visit(self, name: str, module: nn.Module, found: list[LayerAdapter] | str) -> None:
        if isinstance(found, str):
            self.skipped[name] = found
            return
        reasons = [self._reason(name, module, adapter) for adapter in found]
        for adapter, reason in zip(found, reasons, strict=True):
            if reason is None:
                self._add(name, module, adapter)
        if any(reasons):
            self.skipped[name] = "; ".join(dict.fromkeys(filter(None, reasons)))

    def _reason(self, name: str, module: nn.Module, adapter: LayerAdapter) -> str | None:
        """Why a weight that has an adapter is not preconditioned all the same, if so."""
        weight = module._parameters[adapter.weight_name]
        assert weight is not None
        group = self._groups.get(weight)
        pattern = self._excluding(_layer_name(name, adapter))
        if name in self._uncalled:
            return f"{self._uncalled[name]} uses its parameters without calling it"
        if self._outputs and not adapter.shows_output:
            return "the gradient of its output can't be observed"
        if pattern is not None:
            return f"excluded by the pattern {pattern!r}"
        if group is None:
            return f"its {adapter.weight_name} is not among the optimizer's parameters"
        if not group["precondition"]:
            return "its parameter group says precondition=False"
        if weight in self._other_uses:
            return f"its weight is {self._other_uses[weight]}"
        part = self._part(module, adapter)
        if isinstance(part, str):
            return part
        if self._outputs and is_sharded(weight):
            return (
                "its outputs are spread over processes, and this optimizer multiplies from their "
                "side: use DistributedDataParallel, or NysAct or FOOF"
            )
        return None

    def _part(self, module: nn.Module, adapter: LayerAdapter) -> LocalShard | str:
        weight = module._parameters[adapter.weight_name]
        assert weight is not None
        return local_shard(weight, adapter.geometry(module), adapter.output_dim, self._ranks)

    def _warn_of_split_outputs(self) -> None:
        split = {name: why for name, why in self.skipped.items() if "shard_placement_fn" in why}
        if split:
            name, why = next(iter(split.items()))
            warnings.warn(
                f"{len(split)} layer(s) get the plain update, {name!r} among them: {why}",
                stacklevel=2,
            )

    def _add(self, name: str, module: nn.Module, adapter: LayerAdapter) -> None:
        weight = module._parameters[adapter.weight_name]
        assert weight is not None
        name = _layer_name(name, adapter)
        layer = next((layer for layer in self.layers.values() if layer.weight is weight), None)
        if layer is None:
            part = self._part(module, adapter)
            assert isinstance(part, LocalShard)
            geometry = adapter.geometry(module)
            layer = Layer(
                names=[name],
                adapter=adapter,
                geometry=replace(geometry, in_features=part.in_features),
                part=part,
                weight=weight,
                bias=self._bias(module, adapter),
                group=self._groups[weight],
                ranks=self._ranks,
            )
        else:
            layer.names.append(name)
            if layer.bias is not self._bias(module, adapter):
                # Two biases can't both be the last column of one gradient.
                layer.bias = None
        self.layers[name] = layer
        self.modules.append((module, layer, adapter))

    def _bias(self, module: nn.Module, adapter: LayerAdapter) -> nn.Parameter | None:
        """The bias, if the optimizer trains it and its group lets it be preconditioned."""
        bias = module._parameters.get(adapter.bias_name) if adapter.bias_name else None
        group = None if bias is None else self._groups.get(bias)
        if group is None or bias in self._shared_biases or bias in self._other_uses:
            return None
        assert bias is not None
        if not group["precondition"] or not self._lies_alike(module, adapter, bias):
            return None
        return bias

    def _lies_alike(self, module: nn.Module, adapter: LayerAdapter, bias: nn.Parameter) -> bool:
        """Whether the bias is spread over processes by the same rows as its weight."""
        weight, part = module._parameters[adapter.weight_name], self._part(module, adapter)
        assert weight is not None
        assert isinstance(part, LocalShard)
        return part.matches_bias(weight, bias)


def _layer_name(name: str, adapter: LayerAdapter) -> str:
    return ".".join(filter(None, (name, adapter.suffix)))


def _uncalled(modules: Modules, adapters: Adapters) -> dict[str, str]:
    """Submodules that are used without being called, with the kind of module that does so."""
    return {
        f"{name}.{child}".lstrip("."): type(module).__name__
        for (name, module), found in zip(modules, adapters, strict=True)
        if not isinstance(found, str)
        for adapter in found
        for child in adapter.uncalled
    }


def _shared_biases(modules: Modules, adapters: Adapters) -> set[nn.Parameter]:
    """Biases of several weights: none of their gradients is the last column of one of them."""
    weights: dict[nn.Parameter, set[Any]] = {}
    for (_, module), found in zip(modules, adapters, strict=True):
        for adapter in [] if isinstance(found, str) else found:
            bias = module._parameters.get(adapter.bias_name) if adapter.bias_name else None
            if bias is not None:
                weights.setdefault(bias, set()).add(module._parameters[adapter.weight_name])
    return {bias for bias, users in weights.items() if len(users) > 1}
