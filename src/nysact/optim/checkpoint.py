"""Checks of a state dict against the optimizer that loads it."""

from collections.abc import Mapping, Sequence
from itertools import chain
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from nysact.distributed import is_sharded, local, shard_like
from nysact.optim.groups import check_group
from nysact.optim.settings import Option
from nysact.updates import BUFFERS

# With another value, the tensors of a checkpoint have another meaning.
_FIXED = ("rank", "sketch", "precondition", "update")
_ADAMW = ("step", "exp_avg", "exp_avg_sq")
_PARTS = {"state", "param_groups"}
# Those of torch.optim that people come from.
_OTHERS = ("SGD", "AdamW", "Adam", "Muon", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax")
States = dict[Tensor, Mapping[str, Any]]


def clean(state_dict: Any, owner: str) -> dict[str, Any]:
    """A copy of the shape that ``Optimizer.state_dict`` gives, or an error that says what it is."""
    if not isinstance(state_dict, Mapping):
        path = isinstance(state_dict, str | PathLike)
        remedy = ": load the file first, with torch.load" if path else ""
        raise TypeError(
            f"state_dict is {state_dict!r:.60}, expected the dict that {owner}.state_dict() "
            f"returned{remedy}"
        )
    if not state_dict.keys() >= _PARTS:
        raise ValueError(_what_else(state_dict))
    states, groups = state_dict["state"], state_dict["param_groups"]
    if not (isinstance(states, Mapping) and all(isinstance(s, Mapping) for s in states.values())):
        raise ValueError(f"'state' of the state dict is {states!r:.60}, expected a dict of dicts")
    if not (isinstance(groups, list) and all(_is_group(group) for group in groups)):
        raise ValueError(
            f"'param_groups' of the state dict is {groups!r:.60}, expected a list of dicts with "
            "'params', a list of numbers or names"
        )
    cleaned = {
        key: {name: _usable(v) for name, v in state.items() if not (isinstance(v, dict) and not v)}
        for key, state in states.items()  # an empty dict is a gap in a flattened state dict
    }
    return {**state_dict, "state": cleaned}


def _usable(value: Any) -> Any:
    """A tensor that was made in inference mode can't be updated: copy it."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _is_group(group: Any) -> bool:
    listed = isinstance(group, Mapping) and isinstance(group.get("params"), list)
    return listed and all(isinstance(each, int | str) for each in group["params"])


def _what_else(state_dict: Mapping[Any, Any]) -> str:
    """What a dict is that is no optimizer's state, in words."""
    lacking = f"the state dict has no {min(_PARTS - state_dict.keys(), key=len)!r}"
    for key, value in state_dict.items():
        if isinstance(value, Mapping) and value.keys() >= _PARTS:
            return f"{lacking}: it is a whole checkpoint, pass its entry {key!r}"
    if state_dict and all(isinstance(value, Tensor) for value in state_dict.values()):
        return f"{lacking}: it is that of a model, pass what optimizer.state_dict() returned"
    return f"{lacking}, only {list(state_dict)!r:.80}: pass what optimizer.state_dict() returned"


def match(
    state_dict: Mapping[str, Any],
    owner: str,
    groups: Sequence[Mapping[str, Any]],
    options: Mapping[str, Option],
    expected: Mapping[Any, Mapping[str, Tensor]],
) -> States:
    """Parameter to saved state, or an error that names what does not fit."""
    # expected: preconditioned weight to the tensors of its layer
    saved_groups = state_dict["param_groups"]
    for saved in saved_groups:
        if "precondition" not in saved:
            raise ValueError(
                f"this is a state of {_origin(saved)}, not of {owner}: start {owner} without it"
            )
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved_groups]
    if sizes != saved_sizes:
        raise ValueError(
            f"the state dict has parameter groups of {saved_sizes} parameters, this optimizer of "
            f"{sizes}: it was saved for another model or with other groups"
        )
    for saved, group in zip(saved_groups, groups, strict=True):
        _check_group(saved, group, options)
    states = _by_parameter(state_dict, groups)
    names = {p: n for g in groups for p, n in zip(g["params"], g["param_names"], strict=True)}
    absent = [names[w] for w in expected if w.requires_grad and not states.get(w)]
    if absent and any(group["step"] for group in saved_groups):
        raise ValueError(
            f"the state dict has no state of the weights {absent}: it was saved by an optimizer "
            "that did not precondition them"
        )
    for group in groups:
        for param in group["params"]:
            needed, state = expected.get(param, {}), states.get(param, {})
            _check_state(names[param], param, state, needed, adamw=group.get("update") == "adamw")
    return states


def _by_parameter(state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> States:
    """Parameter to saved state; what else the state holds is not ours."""
    ids = list(chain.from_iterable(group["params"] for group in state_dict["param_groups"]))
    if len(set(ids)) < len(ids):
        raise ValueError(f"the state dict lists parameters twice: {ids}")
    params = dict(zip(ids, chain.from_iterable(g["params"] for g in groups), strict=True))
    unknown = [key for key in state_dict["state"] if key not in params and isinstance(key, int)]
    if unknown:
        raise ValueError(f"the state dict holds states of parameters it does not list: {unknown}")
    return {params[key]: state for key, state in state_dict["state"].items() if key in params}


def _origin(saved: Mapping[str, Any]) -> str:
    """The optimizer of torch that a parameter group is of."""
    for name in _OTHERS:
        theirs = getattr(torch.optim, name)([torch.zeros(1, 1, device="cpu")]).param_groups[0]
        alike = saved.keys() - {"param_names", "initial_lr"} == theirs.keys()
        decoupled = "decoupled_weight_decay"
        if alike and saved.get(decoupled) == theirs.get(decoupled):
            return name
    return "another optimizer"


def _check_group(
    saved: Mapping[str, Any], group: Mapping[str, Any], options: Mapping[str, Option]
) -> None:
    for name in _FIXED:
        theirs = saved.get(name)
        if name in group and not (isinstance(theirs, type(group[name])) and theirs == group[name]):
            raise ValueError(
                f"the state dict was saved with {name}={theirs!r:.40}, this optimizer has "
                f"{name}={group[name]!r}: build it with the saved value, or start without the "
                "state dict"
            )
    check_group({**dict.fromkeys(group.keys() & ("betas", "eps")), **saved}, options)
    ours, theirs = group["param_names"], saved.get("param_names", group["param_names"])
    if theirs != ours:
        pairs = zip(theirs, ours, strict=False) if isinstance(theirs, list) else []
        other, here = next((pair for pair in pairs if pair[0] != pair[1]), (theirs, ours))
        raise ValueError(
            f"the state dict has the state of {other!r:.60} where this optimizer has {here!r:.60}: "
            "it was saved for another model, or for another order of parameters; if they were "
            "only renamed, rename them in its param_groups' 'param_names' too"
        )


def _check_state(
    name: str,
    param: Tensor,
    state: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    *,
    adamw: bool,
) -> None:
    own = {**dict.fromkeys(BUFFERS, param), **expected}
    own = {**own, "step": torch.zeros((), device="cpu")} if adamw else own
    for key in own.keys() & state.keys():
        if state[key] is not None or key in expected:
            _check_tensor(f"{key!r} of {name!r}", state[key], own[key], whole=key in BUFFERS)
        if is_sharded(state[key]) and not is_sharded(param):
            raise ValueError(
                f"{key!r} of {name!r} is sharded in the state dict, {name!r} is not: "
                "save and load with torch.distributed.checkpoint, or take the state dict with "
                "StateDictOptions(full_state_dict=True)"
            )
    if "rows" in state and not expected:
        raise ValueError(
            f"the state dict has factors for {name!r}, which this optimizer does not precondition: "
            "build it with the same groups and exclude="
        )
    started = adamw and any(state.get(key) is not None for key in _ADAMW)
    needed = [*(expected if state else ()), *(_ADAMW if started else ())]
    missing = [key for key in needed if state.get(key) is None]
    if missing:
        raise ValueError(
            f"the state dict lacks {missing} for {name!r}: it was saved by another optimizer, or "
            "is damaged"
        )


def _check_tensor(what: str, value: Any, ours: Tensor, *, whole: bool) -> None:
    """Raise unless a saved value has the shape and the kind of our tensor."""
    # A block of what tensor-parallel processes hold is compared with the block that is here.
    found = value if whole or not isinstance(value, Tensor) else local(value)
    described = f"{value!r:.40}"
    if isinstance(found, Tensor):
        described = f"shape {tuple(found.shape)}, {found.dtype}"
        same_kind = found.is_floating_point() == ours.is_floating_point()
        if found.shape == ours.shape and same_kind:
            return
    raise ValueError(
        f"{what} has {described} in the state dict and shape {tuple(ours.shape)}, {ours.dtype} "
        "here: it was saved for another model or other settings, or is damaged"
    )


def shard_buffers(state: Mapping[Any, dict[str, Any]]) -> None:
    """Give the buffers of sharded parameters, which were loaded whole, their layout."""
    for param in state:
        for name in BUFFERS if is_sharded(param) else ():
            if state[param].get(name) is not None:
                state[param][name] = shard_like(state[param][name], param)
