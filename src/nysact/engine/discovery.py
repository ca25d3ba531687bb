"""Which of a model's modules are preconditioned, and why the others aren't."""

import fnmatch
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from torch import nn

from nysact.distributed import RowShard, is_sharded, row_shard
from nysact.engine.capture import DATA_PARALLEL
from nysact.engine.layer import Layer
from nysact.layers import Geometry, LayerAdapter, find_adapters
from nysact.torch_private import WRAPPER_NAMES, own_parameter, own_parameters, uncompiled


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


@dataclass(frozen=True, eq=False)
class Site:
    """A weight of a module, with the adapter that serves it."""

    module_name: str
    module: nn.Module
    adapter: LayerAdapter

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.module_name, self.adapter.suffix)))

    @property
    def weight(self) -> nn.Parameter:
        weight = own_parameter(self.module, self.adapter.weight_name)
        assert weight is not None
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        name = self.adapter.bias_name
        return own_parameter(self.module, name) if name else None

    @property
    def geometry(self) -> Geometry:
        return self.adapter.geometry(self.module)

    @property
    def role(self) -> str:
        """What ``exclude`` calls a layer by the shape of its matrix."""
        _, out_features, in_features = astuple(self.geometry)
        if hasattr(self.module, "kernel_size"):
            return "role:convolution"
        if in_features >= 2 * out_features:
            return "role:contraction"
        return "role:expansion" if out_features >= 2 * in_features else "role:square"


# Each module with its sites, or with the reason why no adapter serves it.
Modules = Sequence[tuple[str, nn.Module, list[Site] | str]]


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
        modules = [(name, module, _sites(name, module)) for name, module in named]
        sites = [site for *_, found in modules if not isinstance(found, str) for site in found]
        self._check_patterns([name for name, _ in named], sites)
        self._uncalled = _uncalled(sites)
        # What a module's adapters serve in submodules.
        inner = [site for site in sites if "." in site.adapter.weight_name]
        self._inner = {param for site in inner for param in (site.weight, site.bias)}
        self._other_uses = self._find_other_uses(modules)
        self._shared_biases = _shared_biases(sites)
        for name, module, found in modules:
            params = set(own_parameters(module).values())
            if isinstance(found, list):
                params.update(site.weight for site in found)
            if name in self._uncalled:
                params -= self._inner
            if any(param in self._group_of for param in params):
                self._visit(name, found)
        self._warn_of_split_outputs()

    def _check_patterns(self, names: list[str], sites: Iterable[Site]) -> None:
        known, roles = [*names], set[str]()
        for site in sites:
            known.append(site.name)
            roles.add(site.role)
        for pattern in self._exclude:
            if pattern not in roles and not fnmatch.filter(known, pattern):
                raise ValueError(
                    f"exclude pattern {pattern!r} matches no module: expected shell-style "
                    f"patterns of module names such as {names[-1]!r}, or roles such as "
                    "'role:contraction'"
                )

    def _excluding(self, site: Site) -> str | None:
        """The pattern that excludes a layer: by role, by name, or by a module around it."""
        parts = site.name.split(".")
        names = [".".join(parts[: end + 1]) for end in range(len(parts))]
        for pattern in self._exclude:
            if pattern == site.role or any(fnmatch.fnmatchcase(name, pattern) for name in names):
                return pattern
        return None

    def _find_other_uses(self, modules: Modules) -> dict[nn.Parameter, str]:
        """Parameters that some module uses in its own way, with a description of that use."""
        uses: dict[nn.Parameter, str] = {}
        layouts: dict[nn.Parameter, tuple[Any, Geometry]] = {}
        for name, module, found in modules:
            other = f"shared with {name!r}, which uses it in another way"
            if isinstance(found, str) or name in self._uncalled:
                params = set(own_parameters(module).values()) - self._inner
                uses.update((param, other) for param in params if param is not None)
                continue
            for site in found:
                layout = (type(site.adapter).to_matrix, site.geometry)
                if layouts.setdefault(site.weight, layout) != layout:
                    uses[site.weight] = other
                if self._excluding(site) is not None:
                    uses[site.weight] = f"shared with {name!r}, which is excluded"
        return uses

    def _visit(self, name: str, sites: list[Site] | str) -> None:
        """Make layers of a module's weights, or note why not."""
        if isinstance(sites, str):
            self.skipped[name] = sites
            return
        shards = [(site, self._shard_or_reason(site)) for site in sites]
        for site, shard in shards:
            if isinstance(shard, RowShard):
                self._add(site, shard)
        reasons = dict.fromkeys(reason for _, reason in shards if isinstance(reason, str))
        if reasons:
            self.skipped[name] = "; ".join(reasons)

    def _shard_or_reason(self, site: Site) -> RowShard | str:
        """The part of a weight on this rank, or why the weight is not preconditioned."""
        weight, name = site.weight, site.module_name
        group, pattern = self._group_of.get(weight), self._excluding(site)
        if name in self._uncalled:
            return f"{self._uncalled[name]} uses its parameters without calling it"
        if self._outputs and not site.adapter.shows_output:
            return "the gradient of its output can't be observed"
        if pattern is not None:
            return f"excluded by the pattern {pattern!r}"
        if group is None:
            return f"its {site.adapter.weight_name} is not among the optimizer's parameters"
        if not group["precondition"]:
            return "its parameter group says precondition=False"
        if weight in self._other_uses:
            return f"its weight is {self._other_uses[weight]}"
        matrices = astuple(site.geometry)
        shard = row_shard(weight, matrices, site.adapter.output_dim, self._ranks)
        if isinstance(shard, RowShard) and self._outputs and is_sharded(weight):
            return (
                "its outputs are sharded over processes, and this optimizer multiplies from their "
                "side: use DistributedDataParallel, or NysAct or FOOF"
            )
        return shard

    def _warn_of_split_outputs(self) -> None:
        split = {name: why for name, why in self.skipped.items() if "shard_placement_fn" in why}
        if split:
            name, why = next(iter(split.items()))
            warnings.warn(
                f"{len(split)} layer(s) get the plain update, {name!r} among them: {why}",
                stacklevel=2,
            )

    def _add(self, site: Site, shard: RowShard) -> None:
        bias = self._bias(site, shard)
        layer = next((each for each in self.layers.values() if each.weight is site.weight), None)
        if layer is None:
            layer = Layer(
                names=[site.name],
                adapter=site.adapter,
                geometry=replace(site.geometry, in_features=shard.in_features),
                shard=shard,
                weight=site.weight,
                bias=bias,
                group=self._group_of[site.weight],
                ranks=self._ranks,
            )
        else:
            layer.names.append(site.name)
            if layer.bias is not bias:
                # Two biases can't both be the last column of one gradient.
                layer.bias = None
        self.layers[site.name] = layer
        self.modules.append((site.module, layer, site.adapter))

    def _bias(self, site: Site, shard: RowShard) -> nn.Parameter | None:
        """The bias, if the optimizer trains it and it can be preconditioned with its weight."""
        bias = site.bias
        if bias is None or bias in self._shared_biases or bias in self._other_uses:
            return None
        group = self._group_of.get(bias)
        usable = group is not None and group["precondition"]
        return bias if usable and shard.matches_bias(site.weight, bias) else None


def _sites(name: str, module: nn.Module) -> list[Site] | str:
    found = find_adapters(module)
    return found if isinstance(found, str) else [Site(name, module, each) for each in found]


def _uncalled(sites: Iterable[Site]) -> dict[str, str]:
    """Submodules that are used without a call, with the type of the module that does so."""
    return {
        f"{site.module_name}.{child}".lstrip("."): type(site.module).__name__
        for site in sites
        for child in site.adapter.uncalled
    }


def _shared_biases(sites: Iterable[Site]) -> set[nn.Parameter]:
    """Biases of several weights: no gradient of theirs is the last column of one of them."""
    weights: dict[nn.Parameter, set[Any]] = {}
    for site in sites:
        if site.bias is not None:
            weights.setdefault(site.bias, set()).add(site.weight)
    return {bias for bias, users in weights.items() if len(users) > 1}
