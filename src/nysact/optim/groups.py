"""Parameter groups of a model's named parameters, from what a user passes as ``params``."""

import difflib
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from nysact.engine import clean_name
from nysact.optim import rules
from nysact.optim.settings import AdamWOptions, Option, options_of

# Schedulers take an optimizer for AdamW by its default betas: other faces have none.
_ADAMW = options_of(AdamWOptions, {})
# What a group has beside the options.
_OWN = {"precondition": Option(True, rules.of_type(bool)), "step": Option(0, rules.COUNT_OR_ZERO)}


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
    if not isinstance(params, Iterable) or isinstance(params, Tensor | dict | set):
        raise TypeError(
            f"params is a {type(params).__name__}, expected an iterable, in a fixed order, of "
            "parameters, named parameters or parameter groups; options are keywords, as in lr=0.1"
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


def nearest(name: str, known: Collection[str], cutoff: float = 0.6) -> str | None:
    """The known name that a misspelt one is most like."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def warn_of_misspelt(group: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Warn of names in a group that look like misspelt options; others are other people's."""
    for name in group.keys() - options.keys() - _OWN.keys() - _ADAMW.keys() - {"params"}:
        near = nearest(str(name), options.keys(), cutoff=0.75)
        if near:
            warnings.warn(
                f"unknown parameter group option {name!r} is kept, without effect: did you mean "
                f"{near!r}?",
                stacklevel=2,
            )


def known_options(options: Mapping[str, Option]) -> dict[str, Option]:
    """Everything in a parameter group that users may change and that is checked."""
    return {**options, "precondition": _OWN["precondition"], **_ADAMW}


def check_group(group: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Check the options of a complete parameter group."""
    check_options(group, {**options, **_OWN})
    check_options(group, {name: _ADAMW[name] for name in _ADAMW if name in group})
    check_together(group)


def check_options(group: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Check each of the options by itself."""
    for name, option in options.items():
        if name not in group:
            raise ValueError(f"a parameter group has no {name!r}, expected {option.rule.expected}")
        option.check(name, group[name])


def check_together(group: Mapping[str, Any]) -> None:
    """Check options that depend on each other."""
    if group["inv_interval"] % group["cov_interval"]:
        raise ValueError(
            f"inv_interval={group['inv_interval']} is not a multiple of "
            f"cov_interval={group['cov_interval']}: factors are refreshed right after statistics "
            "were taken, so choose a multiple"
        )
    if group.get("nesterov") and not group["momentum"]:
        raise ValueError("nesterov=True needs momentum > 0, got momentum=0")
    if group.get("foreach") and group.get("fused"):
        raise ValueError("foreach=True and fused=True exclude each other: set one of them")
