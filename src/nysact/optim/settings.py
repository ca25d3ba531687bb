"""Every option of the optimizers: its type, default, rule and documentation in one place."""

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypedDict

from torch import Tensor

from nysact.curvature import SKETCHES
from nysact.distributed import Group

Rule = Callable[[Any], bool]


@dataclass(frozen=True)
class Option:
    """An option of an optimizer.

    Attributes:
        default: Its default.
        rule: Whether a value is valid.
        expected: What a valid value is, for errors.
        doc: What it does, for the documentation.
        grouped: Whether a parameter group may set it.
    """

    default: Any
    rule: Rule
    expected: str
    doc: str
    grouped: bool = True

    def check(self, name: str, value: Any) -> None:
        """Raise unless the value is valid."""
        if not self.rule(value):
            raise ValueError(f"{name}={value!r}, expected {self.expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_not_negative(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_rate(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and bool(value.isfinite().all())
    return _is_not_negative(value)


def _is_pattern_list(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(pattern, str) for pattern in value)


def _flag(default: bool, doc: str) -> Option:
    return Option(default, _is_bool, "True or False", doc)


def _choice(doc: str, *, grouped: bool = True) -> Option:
    return Option(
        None, lambda v: v is None or _is_bool(v), "True, False or None", doc, grouped=grouped
    )


def _interval(default: int, doc: str) -> Option:
    return Option(default, _is_count, "an integer >= 1, in steps", doc)


class EngineOptions(TypedDict, total=False):
    """Options of every optimizer: when and from what statistics are taken."""

    damping: Annotated[
        float,
        Option(
            1.0,
            lambda v: _is_number(v) and v > 0,
            "a number > 0: without damping the inverse may not exist",
            "Damping rho, added to every eigenvalue. It may change during training.",
        ),
    ]
    stat_decay: Annotated[
        float,
        Option(
            0.95,
            lambda v: _is_number(v) and 0 <= v < 1,
            "a number in [0, 1)",
            "Decay beta2 of the statistics' average.",
        ),
    ]
    cov_interval: Annotated[int, _interval(5, "Steps between statistics (tau_cov).")]
    inv_interval: Annotated[
        int, _interval(50, "Steps between refreshes (tau_inv), a multiple of ``cov_interval``.")
    ]
    subsample: Annotated[
        int | Literal["auto"],
        Option(
            "auto",
            lambda v: v == "auto" or _is_count(v),
            "'auto', or an integer n >= 1 to take every n-th sample",
            'Take statistics of every n-th sample. ``"auto"`` chooses n by the layer: 1 for up to '
            "31 positions a sample, then positions / 16, 32 at most.",
        ),
    ]
    max_failures: Annotated[
        int,
        Option(
            3,
            lambda v: _is_whole(v) and v >= 0,
            "an integer >= 0",
            "How often in a row a layer's factorisation may fail, with a warning and the previous "
            "factors kept, before an error is raised.",
        ),
    ]
    exclude: Annotated[
        Sequence[str],
        Option(
            (),
            _is_pattern_list,
            "a sequence of shell-style patterns of module names, such as ['head', 'blocks.*.mlp']",
            "Shell-style patterns of names of modules to leave out.",
            grouped=False,
        ),
    ]
    process_group: Annotated[
        "Group | Literal[False] | None",
        Option(
            None,
            lambda v: True,
            "a ProcessGroup, a DeviceMesh, a sequence of ProcessGroups, False or None",
            "The processes that share each batch: a ``ProcessGroup``, a ``DeviceMesh``, or a "
            "sequence of groups to sum over in turn. By default those over which "
            "``DistributedDataParallel`` or ``fully_shard`` reduce the gradients; ``False`` for "
            "none.",
            grouped=False,
        ),
    ]
    share_refresh: Annotated[
        bool | None,
        _choice(
            "Whether these processes divide the layers' factorisations between them and exchange "
            "the factors, or each computes all; by default where that is faster, from a rank of "
            "about 32 on.",
            grouped=False,
        ),
    ]


class NystromOptions(TypedDict, total=False):
    """Options of the Nystrom approximation."""

    rank: Annotated[
        int,
        Option(
            10,
            _is_count,
            "an integer >= 1",
            "Rank r of the approximation; where ``rank >= d`` the exact inverse is used.",
        ),
    ]
    sketch: Annotated[
        Literal["columns", "gaussian", "subspace"],
        Option(
            "subspace",
            lambda v: v in SKETCHES,
            f"one of {', '.join(map(repr, SKETCHES))}",
            'What the covariance is multiplied with: ``"columns"`` of the identity (NysAct-S of '
            'the paper), ``"gaussian"`` (NysAct-G), or ``"subspace"``, the basis of the last '
            "refresh: one step of subspace iteration a window at the same cost.",
        ),
    ]
    tail: Annotated[
        bool,
        _flag(
            True,
            "Whether the trace that the approximation misses is spread over the other directions, "
            "which the paper leaves at zero.",
        ),
    ]
    seed: Annotated[
        int,
        Option(
            0,
            _is_whole,
            "an integer",
            "Seed of the test matrices; the global random stream is not touched.",
        ),
    ]


class UpdateOptions(TypedDict, total=False):
    """Options of the SGD update."""

    lr: Annotated[
        float | Tensor,
        Option(
            0.1,
            _is_rate,
            "a finite learning rate >= 0 (a number or a tensor with one element)",
            "Learning rate, a number or a tensor with one element.",
        ),
    ]
    momentum: Annotated[float, Option(0.9, _is_not_negative, "a number >= 0", "Momentum factor.")]
    nesterov: Annotated[bool, _flag(False, "Whether to use Nesterov momentum.")]
    weight_decay: Annotated[
        float, Option(5e-4, _is_not_negative, "a number >= 0", "Coefficient of the weight decay.")
    ]
    decoupled_weight_decay: Annotated[
        bool,
        _flag(
            False,
            "Whether the decay acts on the parameters themselves, as in AdamW, and not on the "
            "preconditioned gradient.",
        ),
    ]
    maximize: Annotated[bool, _flag(False, "Whether to maximise the objective.")]
    foreach: Annotated[
        bool | None, _choice("Use the multi-tensor update; by default where torch does.")
    ]
    fused: Annotated[bool | None, _choice("Use the fused update; off by default.")]


class ClipOptions(TypedDict, total=False):
    """The clipping of the update."""

    kl_clip: Annotated[
        float | None,
        Option(
            None,
            lambda v: v is None or (_is_number(v) and v > 0),
            "a number > 0, or None for no clipping",
            "Bound kappa on the squared length of a step in the curvature's metric: all "
            "preconditioned gradients are scaled by ``min(1, sqrt(kappa / (lr^2 <P(G), G>)))``; "
            "``None`` for no bound.",
            grouped=False,
        ),
    ]


class LossOptions(TypedDict, total=False):
    """What two-sided curvatures must know of the loss."""

    loss_scale: Annotated[
        Callable[[], float] | None,
        Option(
            None,
            lambda v: v is None or callable(v),
            "a function that returns the scale, such as scaler.get_scale, or None",
            "Returns the factor of a scaled loss: ``scaler.get_scale`` of a ``GradScaler``.",
            grouped=False,
        ),
    ]


# What torch, its schedulers and other libraries keep in parameter groups.
_FOREIGN = {
    *("params", "param_names", "step", "name", "lr_scale", "precondition", "differentiable"),
    *("initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"),
}
_PRECONDITION = _flag(True, "Whether layers of the group are preconditioned.")


def options_of(typed_dict: Any, defaults: Mapping[str, Any]) -> dict[str, Option]:
    """The options that a typed dict names, some with another default."""
    found = {name: hint.__metadata__[0] for name, hint in typed_dict.__annotations__.items()}
    return {
        name: Option(**{**vars(option), "default": defaults.get(name, option.default)})
        for name, option in found.items()
    }


def signature_of(options: Mapping[str, Option]) -> inspect.Signature:
    """The explicit signature of an optimizer with these options."""
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("model", positional),
        inspect.Parameter("params", positional, default=None),
    ]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
        for name, option in options.items()
    ]
    return inspect.Signature(parameters)


def documentation_of(options: Mapping[str, Option]) -> str:
    """The entries of a docstring's Args section."""
    return "".join(f"\n    {name}: {option.doc}" for name, option in options.items())


def unknown_name(names: Collection[str], known: Collection[str]) -> str | None:
    """The first name that isn't known and the nearest one that is, in words."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f", expected one of {sorted(known)}"
            return f"{name!r}{hint}"
    return None


def check_group(group: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Check the options of a parameter group that is completed with the defaults."""
    unknown = unknown_name(group.keys() - _FOREIGN, options.keys())
    if unknown:
        raise ValueError(f"unknown parameter group option {unknown}")
    for name, option in {**options, "precondition": _PRECONDITION}.items():
        if option.grouped:
            option.check(name, group[name])
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
