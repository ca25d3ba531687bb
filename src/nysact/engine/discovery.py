"""Which of a model's modules are preconditioned, and why the others aren't."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from nysact.distributed import is_sharded
from nysact.engine.capture import DATA_PARALLEL
from nysact.engine.layer import Layer
from nysact.engine.local_shard import LocalShard, local_shard
from nysact.layers import Geometry, LayerAdapter, find_adapters
from nysact.torch_private import WRAPPER_NAMES, own_parameters, uncompiled

Adapters = list[LayerAdapter] | str
Modules = Sequence[tuple[str, nn.Module, Adapters]]


def clean_name(name: str) -> str:
    """A module's or parameter's name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPER_NAMES)


def unwrap(model: nn.Module) -> nn.Module:
    """Take the model out of its wrappers, and refuse ``nn.DataParallel``."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is {type(model).__name__}, expected an nn.Module: pass the model itself and, "
            "if not all of its parameters are to be trained, params= beside it"
        )
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise TypeError(DATA_PARALLEL)
    while True:
        inner = uncompiled(model)
        if isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        if inner is model:
            return model
        model = inner


class Discovery:
    """The layers of a model that an optimizer's groups cover.

    Attributes:
        layers: Name to layer; modules that share a weight share a layer.
        modules: Every module to hook, with its layer and its own adapter.
        skipped: Module name to the reason, for modules with parameters in the groups.
    """

    def __init__(
        self,
        model: nn.Module,
        param_groups: Iterable[dict[str, Any]],
        exclude: Sequence[str] = (),
        *,
        outputs: bool = False,
        ranks: Collection[int] = (),
    ) -> None:
        self._outputs = outputs
        self._ranks = frozenset(ranks)
        self._group_of = {param: group for group in param_groups for param in group["params"]}
        self._exclude = exclude
        self.layers: dict[str, Layer] = {}
        self.modules: list[tuple[nn.Module, Layer, LayerAdapter]] = []
        self.skipped: dict[str, str] = {}
        named = [(clean_name(name), module) for name, module in model.named_modules()]
        modules = [(name, module, find_adapters(module)) for name, module in named]
        self._check_patterns(modules)
        self._uncalled = _uncalled(modules)
        self._other_uses = self._find_other_uses(modules)
        self._shared_biases = _shared_biases(modules)
        for name, module, adapters in modules:
            if any(param in self._group_of for param in own_parameters(module).values()):
                self._visit(name, module, adapters)
        self._warn_of_split_outputs()

    def _check_patterns(self, modules: Modules) -> None:
        names = [name for name, _, _ in modules]
        names += [_layer_name(name, adapter) for name, _, adapter in _each(modules)]
        names += {_role(module, adapter) for _, module, adapter in _each(modules)}
        for pattern in self._exclude:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"exclude pattern {pattern!r} matches no module: expected shell-style "
                    f"patterns of module names such as {modules[-1][0]!r}, or roles such as "
                    "'role:contraction'"
                )

    def _excluding(self, name: str, module: nn.Module, adapter: LayerAdapter) -> str | None:
        """The pattern that excludes a layer: by role, by name, or by a module around it."""
        parts = _layer_name(name, adapter).split(".")
        names = [".".join(parts[: end + 1]) for end in range(len(parts))]
        names.append(_role(module, adapter))
        matches = (p for p in self._exclude if any(fnmatch.fnmatchcase(n, p) for n in names))
        return next(matches, None)

    def _find_other_uses(self, modules: Modules) -> dict[nn.Parameter, str]:
        """Parameters that some module uses in its own way, with a description of that use."""
        uses: dict[nn.Parameter, str] = {}
        layouts: dict[nn.Parameter, tuple[Any, Geometry]] = {}
        for name, module, adapters in modules:
            other = f"shared with {name!r}, which uses it in another way"
            if isinstance(adapters, str) or name in self._uncalled:
                uses.update((p, other) for p in own_parameters(module).values() if p is not None)
                continue
            for adapter in adapters:
                weight = _weight(module, adapter)
                layout = (type(adapter).to_matrix, adapter.geometry(module))
                if layouts.setdefault(weight, layout) != layout:
                    uses[weight] = other
                if self._excluding(name, module, adapter) is not None:
                    uses[weight] = f"shared with {name!r}, which is excluded"
        return uses

    def _visit(self, name: str, module: nn.Module, adapters: Adapters) -> None:
        """Make layers of a module's weights, or note why not."""
        if isinstance(adapters, str):
            self.skipped[name] = adapters
            return
        reasons = [self._reason(name, module, adapter) for adapter in adapters]
        for adapter, reason in zip(adapters, reasons, strict=True):
            if reason is None:
                self._add(_layer_name(name, adapter), module, adapter)
        if any(reasons):
            self.skipped[name] = "; ".join(dict.fromkeys(filter(None, reasons)))

    def _reason(self, name: str, module: nn.Module, adapter: LayerAdapter) -> str | None:
        """Why a weight that has an adapter is not preconditioned, if it isn't."""
        weight = _weight(module, adapter)
        group = self._group_of.get(weight)
        pattern = self._excluding(name, module, adapter)
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
        shard = self._shard(module, adapter)
        if isinstance(shard, str):
            return shard
        if self._outputs and is_sharded(weight):
            return (
                "its outputs are sharded over processes, and this optimizer multiplies from their "
                "side: use DistributedDataParallel, or NysAct or FOOF"
            )
        return None

    def _shard(self, module: nn.Module, adapter: LayerAdapter) -> LocalShard | str:
        weight, geometry = _weight(module, adapter), adapter.geometry(module)
        return local_shard(weight, geometry, adapter.output_dim, self._ranks)

    def _warn_of_split_outputs(self) -> None:
        split = {name: why for name, why in self.skipped.items() if "shard_placement_fn" in why}
        if split:
            name, why = next(iter(split.items()))
            warnings.warn(
                f"{len(split)} layer(s) get the plain update, {name!r} among them: {why}",
                stacklevel=2,
            )

    def _add(self, name: str, module: nn.Module, adapter: LayerAdapter) -> None:
        weight = _weight(module, adapter)
        layer = next((layer for layer in self.layers.values() if layer.weight is weight), None)
        if layer is None:
            layer = self._layer(name, module, adapter)
        else:
            layer.names.append(name)
            if layer.bias is not self._bias(module, adapter):
                # Two biases can't both be the last column of one gradient.
                layer.bias = None
        self.layers[name] = layer
        self.modules.append((module, layer, adapter))

    def _layer(self, name: str, module: nn.Module, adapter: LayerAdapter) -> Layer:
        weight, shard = _weight(module, adapter), self._shard(module, adapter)
        assert isinstance(shard, LocalShard)
        return Layer(
            names=[name],
            adapter=adapter,
            geometry=replace(adapter.geometry(module), in_features=shard.in_features),
            shard=shard,
            weight=weight,
            bias=self._bias(module, adapter),
            group=self._group_of[weight],
            ranks=self._ranks,
        )

    def _bias(self, module: nn.Module, adapter: LayerAdapter) -> nn.Parameter | None:
        """The bias, if the optimizer trains it and it can be preconditioned with its weight."""
        bias = own_parameters(module).get(adapter.bias_name) if adapter.bias_name else None
        if bias is None or bias in self._shared_biases or bias in self._other_uses:
            return None
        group, shard = self._group_of.get(bias), self._shard(module, adapter)
        assert isinstance(shard, LocalShard)
        usable = group is not None and group["precondition"]
        return bias if usable and shard.matches_bias(_weight(module, adapter), bias) else None


def _weight(module: nn.Module, adapter: LayerAdapter) -> nn.Parameter:
    weight = own_parameters(module)[adapter.weight_name]
    assert weight is not None
    return weight


def _role(module: nn.Module, adapter: LayerAdapter) -> str:
    """What ``exclude`` calls a layer by the shape of its matrix."""
    geometry = adapter.geometry(module)
    if hasattr(module, "kernel_size"):
        return "role:convolution"
    if geometry.in_features >= 2 * geometry.out_features:
        return "role:contraction"
    return "role:expansion" if geometry.out_features >= 2 * geometry.in_features else "role:square"


def _layer_name(name: str, adapter: LayerAdapter) -> str:
    return ".".join(filter(None, (name, adapter.suffix)))


def _each(modules: Modules) -> Iterator[tuple[str, nn.Module, LayerAdapter]]:
    """Every adapter of every module that has some."""
    for name, module, adapters in modules:
        for adapter in [] if isinstance(adapters, str) else adapters:
            yield name, module, adapter


def _uncalled(modules: Modules) -> dict[str, str]:
    """Submodules that are used without a call, with the type of the module that does so."""
    return {
        f"{name}.{child}".lstrip("."): type(module).__name__
        for name, module, adapter in _each(modules)
        for child in adapter.uncalled
    }


def _shared_biases(modules: Modules) -> set[nn.Parameter]:
    """Biases of several weights: no gradient of theirs is the last column of one of them."""
    weights: dict[nn.Parameter, set[Any]] = {}
    for _, module, adapter in _each(modules):
        bias = own_parameters(module).get(adapter.bias_name) if adapter.bias_name else None
        if bias is not None:
            weights.setdefault(bias, set()).add(_weight(module, adapter))
    return {bias for bias, users in weights.items() if len(users) > 1}
