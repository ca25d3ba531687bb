"""Which update each parameter gets, and why: Muon is for hidden matrices and convolutions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from nysact.distributed import split_of
from nysact.layers import LayerAdapter, find_adapters
from nysact.torch_private import own_parameter, own_parameters
from nysact.updates import MatrixLayout

# Names of modules whose weight packs the projections of query, key and value.
_PACKED = ("c_attn", "qkv", "qkv_proj", "Wqkv", "query_key_value")
_BIAS = "a bias"


class Assignment(NamedTuple):
    """The update of a parameter, the reason, and its matrices where they are known."""

    update: str
    reason: str
    layout: MatrixLayout | None = None


class Assignments:
    """The update of each parameter of an optimizer; the model is read only if Muon takes part."""

    def __init__(self, default: str | None, adamw: Mapping[str, Any]) -> None:
        self._default = default
        self._adamw = adamw  # settings of the parameters that Muon leaves out
        self._found: dict[Tensor, Assignment] = {}
        self.layouts: dict[Tensor, MatrixLayout] = {}
        self._reasons: dict[Tensor, str] = {}

    def reason(self, param: Tensor) -> str:
        """Why a parameter has its update."""
        return self._reasons.get(param, "the default of every parameter")

    def divide(self, model: nn.Module, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Groups of named parameters, divided where their update is Muon by default."""
        self._examine(model, groups)
        divided = [part for group in groups for part in self._divided(group)]
        for group in divided:
            self._check_matrices(group)
        return divided

    def check(self, model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
        """Raise if a group of an optimizer asks Muon to update what it can't."""
        self._examine(model, groups)
        for group in groups:
            pairs = zip(group["param_names"], group["params"], strict=True)
            self._check_matrices({**group, "params": list(pairs)})

    def _examine(self, model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
        """Find what Muon can update, if it is asked for."""
        if "muon" in [group.get("update", self._default) for group in groups]:
            self._found = _assign(model)
            self.layouts = {p: each.layout for p, each in self._found.items() if each.layout}

    def _divided(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        """Divide a group between Muon and AdamW, unless it says its update."""
        params = [param for _, param in group["params"]]
        if "update" in group:
            self._reasons.update(dict.fromkeys(params, "chosen by its parameter group"))
        if "update" in group or self._default != "muon":
            return [group]
        self._reasons.update((param, self._found[param].reason) for param in params)
        # A group without weight decay has none under AdamW either.
        adamw = {**self._adamw, **{k: v for k, v in group.items() if k == "weight_decay" and not v}}
        own = {name: group.get(f"adamw_{name}", value) for name, value in adamw.items()}
        rest = {name: v for name, v in group.items() if not name.startswith("adamw_")}
        groups = [{**rest, "update": "muon"}, {**rest, **own, "update": "adamw"}]
        for each in groups:
            pairs = [(n, p) for n, p in group["params"] if self._found[p].update == each["update"]]
            each["params"] = pairs
        return [each for each in groups if each["params"]]

    def _check_matrices(self, group: Mapping[str, Any]) -> None:
        """Raise if a group of named parameters asks Muon to update what it can't."""
        for name, param in group["params"] if group.get("update") == "muon" else ():
            layout, split = self.layouts.get(param), split_of(param)
            if layout is None or isinstance(split, str):
                why = self._found[param].reason if layout is None else split
                known = (
                    "the weight of a layer with an adapter" if layout is None else "such a split"
                )
                raise ValueError(
                    f"update='muon' for the parameter {name!r} of shape {tuple(param.shape)} that "
                    f"is {why}: Muon needs {known}; put it into a group with update='adamw'"
                )


def _assign(model: nn.Module) -> dict[Tensor, Assignment]:
    """Assign Muon to the hidden matrices and convolutions of a model, AdamW to everything else."""
    found: dict[Any, Assignment] = {}
    served: list[tuple[str, nn.Module, LayerAdapter]] = []
    for name, module in model.named_modules():
        adapters = find_adapters(module)
        reason = _reason(module) if isinstance(adapters, str) else _BIAS
        for param in own_parameters(module).values():
            if param is not None and (reason != _BIAS or param not in found):
                found[param] = Assignment("adamw", reason)
        served += [] if isinstance(adapters, str) else [(name, module, a) for a in adapters]
    for index, (name, module, adapter) in enumerate(served):
        weight = own_parameter(module, adapter.weight_name)
        assert weight is not None
        if found[weight].reason == _BIAS:
            found[weight] = _of_weight(name, module, adapter, index, len(served))
    return found


def _reason(module: nn.Module) -> str:
    """Why a module without an adapter goes to AdamW."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "an embedding, or tied to one"
    return f"a parameter of {type(module).__name__}, which is not a linear map"


def _of_weight(
    name: str, module: nn.Module, adapter: LayerAdapter, index: int, count: int
) -> Assignment:
    """The assignment of a weight that an adapter serves, by its place in the model."""
    geometry = adapter.geometry(module)
    packed = name.rpartition(".")[2] in _PACKED and geometry.out_features % 3 == 0
    layout = MatrixLayout(adapter, geometry, 3 if packed else 1)
    kernel = getattr(module, "kernel_size", None)
    if min(layout.shape) == 1:
        return Assignment("adamw", "its matrices are vectors", layout)
    if index == count - 1 and kernel is None and count > 1:
        return Assignment("adamw", "the last layer: the head", layout)
    if index == 0 and kernel is not None and kernel == getattr(module, "stride", None):
        return Assignment("adamw", "the first layer: a patch embedding", layout)
    return Assignment("muon", "a hidden matrix" if kernel is None else "a convolution", layout)
