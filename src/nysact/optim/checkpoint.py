"""Checks of a state dict against the optimizer that loads it."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from nysact.distributed import is_sharded, local, shard_like
from nysact.updates import BUFFERS

# With another value, the tensors of a checkpoint have another meaning.
_FIXED = ("rank", "sketch", "precondition", "update")
Expected = Mapping[Any, Mapping[str, Tensor]]


def without_gaps(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the empty dicts that stand for nothing in a flattened distributed state dict."""
    states = {
        key: {name: value for name, value in state.items() if not isinstance(value, dict)}
        for key, state in state_dict.get("state", {}).items()
    }
    return {**state_dict, "state": states} if "state" in state_dict else dict(state_dict)


def match(
    state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], expected: Expected
) -> dict[Tensor, dict[str, Any]]:
    """Parameter to saved state, or an error that names what does not fit."""
    # expected: preconditioned weight to the tensors of its layer
    for key in ("state", "param_groups"):
        if key not in state_dict:
            raise KeyError(f"the state dict has no {key!r}: pass what optimizer.state_dict() gave")
    saved_groups = state_dict["param_groups"]
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved_groups]
    if sizes != saved_sizes:
        raise ValueError(
            f"the state dict has parameter groups of {saved_sizes} parameters, this optimizer of "
            f"{sizes}: it was saved for another model or with other groups"
        )
    for saved, group in zip(saved_groups, groups, strict=True):
        _check_group(saved, group)
    saved_ids = chain.from_iterable(group["params"] for group in saved_groups)
    params = dict(zip(saved_ids, chain.from_iterable(g["params"] for g in groups), strict=True))
    unknown = [key for key in state_dict["state"] if key not in params]
    if unknown:
        raise ValueError(f"the state dict holds states of parameters it does not list: {unknown}")
    states = {params[key]: state for key, state in state_dict["state"].items()}
    names = {p: n for g in groups for p, n in zip(g["params"], g["param_names"], strict=True)}
    absent = [names[weight] for weight in expected if weight not in states]
    if absent and any(group.get("step", 0) for group in saved_groups):
        raise ValueError(
            f"the state dict has no state of the weights {absent}: it was saved by an optimizer "
            "that did not precondition them"
        )
    for param, state in states.items():
        _check_state(names[param], param, state, expected.get(param, {}))
    return states


def _check_group(saved: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    for name in _FIXED:
        if name in group and saved.get(name) != group[name]:
            raise ValueError(
                f"the state dict was saved with {name}={saved.get(name)!r}, this optimizer has "
                f"{name}={group[name]!r}: build it with the saved value, or start without the "
                "state dict"
            )
    for theirs, ours in zip(saved.get("param_names", ()), group["param_names"], strict=False):
        if theirs != ours:
            raise ValueError(
                f"the state dict has the state of {theirs!r} where this optimizer has {ours!r}: it "
                "was saved for another model, or for another order of parameters; if they were "
                "only renamed, rename them in its param_groups' 'param_names' too"
            )


def _check_state(
    name: str, param: Tensor, state: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> None:
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    allowed = {**dict.fromkeys(BUFFERS, tuple(param.shape)), "step": (), **shapes}
    for key, value in state.items():
        if key not in allowed:
            raise ValueError(
                f"the state dict holds {key!r} for {name!r}, where this optimizer has "
                f"{sorted(allowed)}: it was saved by another optimizer or for another model"
            )
        # A block of what tensor-parallel processes hold is compared with the block that is here.
        compared = value if value is None or key in BUFFERS else local(value)
        if compared is not None and tuple(compared.shape) != allowed[key]:
            raise ValueError(
                f"{key!r} of {name!r} has shape {tuple(compared.shape)} in the state dict and "
                f"{allowed[key]} here: it was saved for another model or other settings"
            )
        if is_sharded(value) and not is_sharded(param):
            raise ValueError(
                f"{key!r} of {name!r} is sharded in the state dict, {name!r} is not: "
                "save and load with torch.distributed.checkpoint, or take the state dict with "
                "StateDictOptions(full_state_dict=True)"
            )
    missing = shapes.keys() - state.keys()
    if state and missing:
        raise ValueError(
            f"the state dict lacks {sorted(missing)} for {name!r}: it was saved by an optimizer "
            "that did not precondition this layer"
        )


def shard_buffers(state: Mapping[Any, dict[str, Any]]) -> None:
    """Give the buffers of sharded parameters, which were loaded whole, their layout."""
    for param in state:
        for name in BUFFERS if is_sharded(param) else ():
            if state[param].get(name) is not None:
                state[param][name] = shard_like(state[param][name], param)
