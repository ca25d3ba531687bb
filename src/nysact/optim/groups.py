"""Parameter groups of a model's named parameters, from what a user passes as ``params``."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from nysact.engine import clean_name


def named_groups(model: nn.Module, params: Any) -> list[dict[str, Any]]:
    """Groups of ``(name, parameter)`` pairs; all trainable parameters where ``params`` is None."""
    names = names_of(model)
    lazy = [name for param, name in names.items() if isinstance(param, UninitializedParameter)]
    if lazy:
        raise ValueError(
            f"parameters {lazy} are not initialised yet: run one forward before building the "
            "optimizer"
        )
    if params is None:
        params = [param for param in names if param.requires_grad]
        if not params:
            raise ValueError(
                "the model has no trainable parameter: set requires_grad=True on what is to be "
                "trained, or pass params="
            )
    if isinstance(params, float | int):
        raise TypeError(
            f"params={params!r} is a number, expected parameters or groups: options are keywords, "
            f"such as lr={params!r}"
        )
    if isinstance(params, Tensor | dict | set):
        raise TypeError(
            f"params is a {type(params).__name__}, expected an iterable, in a fixed order, of "
            "parameters, named parameters or parameter groups"
        )
    entries = list(params)
    if not entries:
        raise ValueError("params is empty, expected at least one parameter or parameter group")
    groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
    seen: set[Tensor] = set()
    return [name_group(group, names, seen) for group in groups]


def names_of(model: nn.Module) -> dict[Tensor, str]:
    """Parameter to name, as in the model without wrappers."""
    return {param: clean_name(name) for name, param in model.named_parameters()}


def name_group(
    group: Mapping[str, Any], names: Mapping[Tensor, str], seen: set[Tensor]
) -> dict[str, Any]:
    """A copy of a group with ``(name, parameter)`` pairs; its parameters are added to ``seen``."""
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(f"a parameter group is a dict with 'params', got {group!r:.80}")
    pairs = []
    for index, param in enumerate(_parameters(group["params"])):
        if not isinstance(param, Tensor):
            raise TypeError(f"params holds a {type(param).__name__}, expected parameters")
        if param not in names:
            raise ValueError(
                f"parameter {index} of a group, of shape {tuple(param.shape)}, is not a parameter "
                "of the model: pass the model that holds it"
            )
        if param in seen:
            raise ValueError(
                f"parameter {names[param]!r} is given twice, in one group or in two: list each "
                "parameter once"
            )
        seen.add(param)
        pairs.append((names[param], param))
    return {**group, "params": pairs}


def _parameters(params: Any) -> Iterable[Any]:
    """The tensors of a group's ``"params"``: one, several, or named ones."""
    if isinstance(params, set):
        raise TypeError("params is a set, expected parameters in a fixed order, such as a list")
    entries = [params] if isinstance(params, Tensor) else list(params)
    return [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
