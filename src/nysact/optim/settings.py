"""Every option of the optimizers: its type, default, rule and documentation in one place."""

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from torch import Tensor

from nysact.curvature import SKETCHES
from nysact.distributed import Group
from nysact.updates import UPDATES


class Rule(NamedTuple):
    """Which values an option takes, as a test and in words."""

    holds: Callable[[Any], bool]
    expected: str


@dataclass(frozen=True)
class Option:
    """An option: default, rule and documentation, and whether a parameter group may set it."""

    default: Any
    rule: Rule
    doc: str
    grouped: bool = True

    def check(self, name: str, value: Any) -> None:
        """Raise unless the value is valid."""
        if not self.rule.holds(value):
            raise ValueError(f"{name}={value!r}, expected {self.rule.expected}")


# --- rules -----------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_rate(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and bool(value.isfinite().all())
    return NOT_NEGATIVE.holds(value)


def _is_pattern_list(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(pattern, str) for pattern in value)


def _are_betas(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_fraction, value))


def _one_of(*choices: Any) -> Rule:
    return Rule(lambda v: any(v is c or v == c for c in choices), f"one of {choices}")


NOT_NEGATIVE = Rule(lambda v: _is_number(v) and v >= 0, "a number >= 0")
FRACTION = Rule(_is_fraction, "a number in [0, 1)")
COUNT = Rule(lambda v: _is_whole(v) and v >= 1, "an integer >= 1")
STEPS = Rule(COUNT.holds, "an integer >= 1, in steps")
FLAG = Rule(lambda v: isinstance(v, bool), "True or False")
MAYBE = Rule(lambda v: v is None or isinstance(v, bool), "True, False or None")
DAMPING = Rule(
    lambda v: _is_number(v) and v > 0, "a number > 0: without damping the inverse may not exist"
)
BOUND = Rule(
    lambda v: v is None or (_is_number(v) and v > 0), "a number > 0, or None for no clipping"
)
RATE = Rule(_is_rate, "a finite learning rate >= 0 (a number or a tensor with one element)")
BETAS = Rule(_are_betas, "two numbers in [0, 1), such as (0.9, 0.99)")

# --- options ---------------------------------------------------------------------------------


class EngineOptions(TypedDict, total=False):
    """When statistics are taken, from what, and how they are damped."""

    damping: Annotated[
        float,
        Option(1.0, DAMPING, "Damping rho of the eigenvalues. It may change during training."),
    ]
    damping_scale: Annotated[
        Literal["absolute", "trace"],
        Option(
            "absolute",
            _one_of("absolute", "trace"),
            'With ``"trace"`` the damping is a multiple of the mean eigenvalue of the curvature of '
            "each layer and group of a convolution: ``tr(A) / d``, or its product with that of the "
            "output side. The update then ignores the scale of a layer's inputs, if it ignores the "
            "scale of its gradient.",
        ),
    ]
    stat_decay: Annotated[float, Option(0.95, FRACTION, "Decay beta2 of the statistics' average.")]
    cov_interval: Annotated[int, Option(5, STEPS, "Steps between statistics (tau_cov).")]
    inv_interval: Annotated[
        int, Option(50, STEPS, "Steps between refreshes (tau_inv), a multiple of ``cov_interval``.")
    ]
    subsample: Annotated[
        int | Literal["auto"],
        Option(
            "auto",
            Rule(
                lambda v: v == "auto" or COUNT.holds(v),
                "'auto', or an integer n >= 1 to take one sample in n",
            ),
            "Take statistics of one sample in n of each call, spread evenly over the call, and of "
            'others in the next step, so that all are taken equally often. ``"auto"`` chooses n by '
            "the layer: for convolutions 1 for up to 31 positions a sample, then positions / 16, "
            "at most 32; of dense layers it takes single rows, whichever dimension counts samples: "
            "4 for each input, at least 1,024 and at least one in 32.",
        ),
    ]
    max_failures: Annotated[
        int,
        Option(
            3,
            Rule(lambda v: _is_whole(v) and v >= 0, "an integer >= 0"),
            "How often in a row a layer's factorisation may fail, with a warning and the previous "
            "factors kept, before an error is raised.",
        ),
    ]
    exclude: Annotated[
        Sequence[str],
        Option(
            (),
            Rule(_is_pattern_list, "a list of patterns of module names, such as ['head', '*.mlp']"),
            "Shell-style patterns of names of modules that are not preconditioned. "
            '``"role:contraction"`` stands for linear layers with at least twice as many inputs as '
            'outputs, ``"role:expansion"`` for the reverse.',
            grouped=False,
        ),
    ]
    process_group: Annotated[
        "Group | Literal[False] | None",
        Option(
            None,
            Rule(lambda v: True, "a ProcessGroup, a DeviceMesh or a sequence of ProcessGroups"),
            "The processes that share each batch: a ``ProcessGroup``, a ``DeviceMesh``, or a "
            "sequence of groups to sum over in turn. By default those over which "
            "``DistributedDataParallel`` or ``fully_shard`` reduce the gradients; ``False`` for "
            "none.",
            grouped=False,
        ),
    ]
    share_refresh: Annotated[
        bool | None,
        Option(
            None,
            MAYBE,
            "Whether these processes divide the layers' factorisations between them and exchange "
            "the factors, or each computes all; by default where that is faster, from a rank of "
            "about 32 on.",
            grouped=False,
        ),
    ]


class NystromOptions(TypedDict, total=False):
    """The Nystrom approximation."""

    rank: Annotated[
        int,
        Option(
            10, COUNT, "Rank r of the approximation; where ``rank >= d`` the exact inverse is used."
        ),
    ]
    sketch: Annotated[
        Literal["columns", "gaussian", "subspace"],
        Option(
            "subspace",
            _one_of(*SKETCHES),
            'What the covariance is multiplied with: ``"columns"`` of the identity (NysAct-S of '
            'the paper), ``"gaussian"`` (NysAct-G), or ``"subspace"``, the basis of the last '
            "refresh: one step of subspace iteration a window at the same cost.",
        ),
    ]
    tail: Annotated[
        bool,
        Option(
            True,
            FLAG,
            "Whether the trace that the approximation misses is spread over the other directions, "
            "which the paper leaves at zero.",
        ),
    ]
    power: Annotated[
        float,
        Option(
            1.0,
            Rule(lambda v: _is_number(v) and 0 < v <= 1, "a number in (0, 1]"),
            "Power p of the inverse, ``(A + damping I)^-p``; 0.5 is a gentler preconditioner.",
        ),
    ]
    memory: Annotated[
        Literal["window", "long"],
        Option(
            "window",
            _one_of("window", "long"),
            'Whether the sketch restarts with each window, or, with ``"long"`` and the sketch '
            '``"subspace"``, continues as its projection on the new basis.',
        ),
    ]
    seed: Annotated[
        int,
        Option(
            0,
            Rule(_is_whole, "an integer"),
            "Seed of the test matrices; the global random stream is not touched.",
        ),
    ]


class UpdateOptions(TypedDict, total=False):
    """The update that preconditioned gradients are fed to."""

    lr: Annotated[
        float | Tensor, Option(0.1, RATE, "Learning rate, a number or a tensor with one element.")
    ]
    update: Annotated[
        Literal["sgd", "adamw", "muon"],
        Option("sgd", _one_of(*UPDATES), "What is done with preconditioned gradients."),
    ]
    momentum: Annotated[float, Option(0.9, NOT_NEGATIVE, "Momentum factor of SGD and Muon.")]
    nesterov: Annotated[bool, Option(False, FLAG, "Whether SGD and Muon use Nesterov momentum.")]
    weight_decay: Annotated[float, Option(5e-4, NOT_NEGATIVE, "Coefficient of the weight decay.")]
    decoupled_weight_decay: Annotated[
        bool,
        Option(
            False,
            FLAG,
            "Whether the decay of SGD acts on the parameters themselves, as it always does in "
            "AdamW and Muon, and not on the preconditioned gradient.",
        ),
    ]
    ns_steps: Annotated[int, Option(5, COUNT, "Newton-Schulz iterations of Muon.")]
    adjust_lr_fn: Annotated[
        Literal["match_rms_adamw", "original"],
        Option(
            "match_rms_adamw",
            _one_of("match_rms_adamw", "original"),
            "How Muon scales the learning rate of an ``(out, d)`` matrix, as in "
            "``torch.optim.Muon``: by ``0.2 sqrt(max(out, d))`` or ``sqrt(max(1, out / d))``.",
        ),
    ]
    maximize: Annotated[bool, Option(False, FLAG, "Whether to maximise the objective.")]
    foreach: Annotated[
        bool | None, Option(None, MAYBE, "Use the multi-tensor update; by default as in torch.")
    ]
    fused: Annotated[bool | None, Option(None, MAYBE, "Use the fused update; off by default.")]
    kl_clip: Annotated[
        float | None,
        Option(
            None,
            BOUND,
            "Bound kappa on the squared length of an SGD step in the curvature's metric: all "
            "preconditioned gradients are scaled by ``min(1, sqrt(kappa / (lr^2 <P(G), G>)))``; "
            "``None`` for no bound.",
            grouped=False,
        ),
    ]


class AdamWOptions(TypedDict, total=False):
    """Settings of AdamW, which the groups with ``update="adamw"`` of every optimizer may set."""

    betas: Annotated[
        tuple[float, float], Option((0.9, 0.999), BETAS, "Decays of AdamW's two averages.")
    ]
    eps: Annotated[float, Option(1e-8, NOT_NEGATIVE, "Added to the denominator of AdamW.")]


class MuonOptions(TypedDict, total=False):
    """AdamW for the parameters that Muon leaves out."""

    adamw_lr: Annotated[
        float | Tensor,
        Option(3e-3, RATE, "Learning rate of AdamW for the other parameters.", grouped=False),
    ]
    adamw_betas: Annotated[
        tuple[float, float],
        Option((0.9, 0.99), BETAS, "Decays of its two averages.", grouped=False),
    ]
    adamw_weight_decay: Annotated[
        float, Option(0.0, NOT_NEGATIVE, "Coefficient of its weight decay.", grouped=False)
    ]


class LossOptions(TypedDict, total=False):
    """What two-sided curvatures must know of the loss."""

    loss_scale: Annotated[
        Callable[[], float] | None,
        Option(
            None,
            Rule(
                lambda v: v is None or callable(v), "a function such as scaler.get_scale, or None"
            ),
            "Returns the factor of a scaled loss: ``scaler.get_scale`` of a ``GradScaler``.",
            grouped=False,
        ),
    ]


_PRECONDITION = Option(True, FLAG, "Whether layers of the group are preconditioned.")
# What torch, its schedulers and other libraries keep in parameter groups.
_FOREIGN = {
    *("params", "param_names", "step", "name", "lr_scale", "precondition", "differentiable"),
    *("initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"),
}

# --- the faces -------------------------------------------------------------------------------


def options_of(typed_dict: Any, defaults: Mapping[str, Any]) -> dict[str, Option]:
    """The options that a typed dict names, some with another default."""
    found = {name: hint.__metadata__[0] for name, hint in typed_dict.__annotations__.items()}
    return {
        name: replace(option, default=defaults.get(name, option.default))
        for name, option in found.items()
    }


# --- checks ----------------------------------------------------------------------------------


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
    # Schedulers take an optimizer for AdamW by its default betas: those of SGD have none.
    adamw = options_of(AdamWOptions, {}).items()
    options = {**options, **{name: option for name, option in adamw if name in group}}
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
