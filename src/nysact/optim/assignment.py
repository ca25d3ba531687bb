"""Which update each parameter gets under Muon, and why."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from nysact.distributed import split_of
from nysact.layers import LayerAdapter, find_adapters
from nysact.torch_private import own_parameters
from nysact.updates import MatrixLayout

# Names of modules whose weight packs the projections of query, key and value.
_PACKED = ("c_attn", "qkv", "qkv_proj", "Wqkv", "query_key_value")


class Assignment(NamedTuple):
    """The update of a parameter, the reason, and its matrices where they are known."""

    update: str
    reason: str
    layout: MatrixLayout | None = None


def assign(model: nn.Module) -> dict[Tensor, Assignment]:
    """Assign Muon to the hidden matrices and convolutions of a model, AdamW to everything else."""
    found: dict[Any, Assignment] = {}
    served: list[tuple[str, nn.Module, LayerAdapter]] = []
    for name, module in model.named_modules():
        adapters = find_adapters(module)
        reason = _reason(module) if isinstance(adapters, str) else "a bias"
        for param in own_parameters(module).values():
            if param is not None and reason != "a bias":
                found[param] = Assignment("adamw", reason)
            elif param is not None:
                found.setdefault(param, Assignment("adamw", reason))
        served += [] if isinstance(adapters, str) else [(name, module, a) for a in adapters]
    for index, (name, module, adapter) in enumerate(served):
        weight = own_parameters(module)[adapter.weight_name]
        if found[weight].reason == "a bias":
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
    layout = MatrixLayout(adapter, geometry, _parts(name, geometry.out_features))
    kernel = getattr(module, "kernel_size", None)
    if min(layout.shape) == 1:
        return Assignment("adamw", "its matrices are vectors", layout)
    if index == count - 1 and kernel is None and count > 1:
        return Assignment("adamw", "the last layer: the head", layout)
    if index == 0 and kernel is not None and kernel == getattr(module, "stride", None):
        return Assignment("adamw", "the first layer: a patch embedding", layout)
    return Assignment("muon", "a hidden matrix" if kernel is None else "a convolution", layout)


def _parts(name: str, out_features: int) -> int:
    """Number of projections that a weight packs along its outputs."""
    packed = name.rpartition(".")[2] in _PACKED
    return 3 if packed and out_features % 3 == 0 else 1


def divide(
    groups: Sequence[dict[str, Any]],
    assigned: Mapping[Tensor, Assignment],
    default: str | None,
    adamw: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], dict[Tensor, str]]:
    """Groups, divided where their update is Muon by default, and each parameter's reason."""
    divided: list[dict[str, Any]] = []
    reasons: dict[Tensor, str] = {}
    for group in groups:
        params = [param for _, param in group["params"]]
        if "update" not in group and default == "muon":
            divided += _split_group(group, assigned, adamw)
            reasons.update((param, assigned[param].reason) for param in params)
        else:
            divided.append(group)
            explicit = "update" in group
            why = "chosen by its parameter group" if explicit else "the default of every parameter"
            reasons.update(dict.fromkeys(params, why))
    for group in divided:
        _check_matrices(group, assigned)
    return divided, reasons


def _split_group(
    group: Mapping[str, Any], assigned: Mapping[Tensor, Assignment], adamw: Mapping[str, Any]
) -> Sequence[dict[str, Any]]:
    """Divide a group of named parameters between Muon and AdamW; ``adamw`` has its settings."""
    pairs: dict[str, list[Any]] = {"muon": [], "adamw": []}
    for name, param in group["params"]:
        pairs[assigned[param].update].append((name, param))
    if group.get("weight_decay") == 0:
        # A group without weight decay has none under AdamW either.
        adamw = {**adamw, "weight_decay": 0.0}
    own = {name: group.get(f"adamw_{name}", value) for name, value in adamw.items()}
    rest = {name: v for name, v in group.items() if not name.startswith("adamw_")}
    groups = [
        {**rest, "update": "muon", "params": pairs["muon"]},
        {**rest, **own, "update": "adamw", "params": pairs["adamw"]},
    ]
    return [each for each in groups if each["params"]]


def _check_matrices(group: Mapping[str, Any], assigned: Mapping[Tensor, Assignment]) -> None:
    """Raise if a group of named parameters asks Muon to update what it can't."""
    for name, param in group["params"] if group.get("update") == "muon" else ():
        layout, split = assigned[param].layout, split_of(param)
        if layout is None or isinstance(split, str):
            why = assigned[param].reason if layout is None else split
            needs = "the weight of a layer with an adapter" if layout is None else "one such split"
            raise ValueError(
                f"update='muon' for the parameter {name!r} of shape {tuple(param.shape)} that is "
                f"{why}: Muon needs {needs}; put it into a group with update='adamw'"
            )
