"""Every option of the optimizers: its type, default, rule and documentation in one place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

from torch import Tensor

from nysact.distributed import Group
from nysact.optim import rules
from nysact.optim.rules import COUNT, FRACTION, NOT_NEGATIVE, RATE, Rule


@dataclass(frozen=True)
class Option:
    """An option: default, rule, whether a parameter group may set it, documentation."""

    default: Any
    rule: Rule = rules.BY_TYPE
    grouped: bool = True
    doc: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise unless the value is valid."""
        if not self.rule.holds(value):
            raise ValueError(f"{name}={value!r}, expected {self.rule.expected}")


def options_of(typed_dict: Any, defaults: Mapping[str, Any]) -> dict[str, Option]:
    """The options that a typed dict names, some with another default."""
    options = {}
    for name, hint in typed_dict.__annotations__.items():
        option, doc = hint.__metadata__
        rule = rules.of_type(hint.__origin__) if option.rule is rules.BY_TYPE else option.rule
        default = defaults.get(name, option.default)
        options[name] = replace(option, default=default, rule=rule, doc=doc)
    return options


class EngineOptions(TypedDict, total=False):
    """When statistics are taken, from what, and how they are damped."""

    damping: Annotated[
        float,
        Option(1.0, rules.DAMPING),
        "Damping rho of the eigenvalues. It may change during training.",
    ]
    damping_scale: Annotated[
        Literal["absolute", "trace"],
        Option("absolute"),
        'With ``"trace"`` the damping is a multiple of the mean eigenvalue of the curvature of '
        "each layer and group of a convolution: ``tr(A) / d``, or its product with that of the "
        "output side. The update then ignores the scale of a layer's inputs, if it ignores the "
        "scale of its gradient.",
    ]
    stat_decay: Annotated[float, Option(0.95, FRACTION), "Decay beta2 of the statistics' average."]
    cov_interval: Annotated[int, Option(5, rules.STEPS), "Steps between statistics (tau_cov)."]
    inv_interval: Annotated[
        int,
        Option(50, rules.STEPS),
        "Steps between refreshes (tau_inv), a multiple of ``cov_interval``.",
    ]
    subsample: Annotated[
        int | Literal["auto"],
        Option("auto", rules.STRIDE),
        "Take statistics of one sample in n of each call, spread evenly over the call, and of "
        'others in the next step, so that all are taken equally often. ``"auto"`` chooses n by '
        "the layer: for convolutions 1 for up to 31 positions a sample, then positions / 16, "
        "at most 32; of dense layers it takes single rows, whichever dimension counts samples: "
        "4 for each input, at least 1,024 and at least one in 32.",
    ]
    max_failures: Annotated[
        int,
        Option(3, rules.COUNT_OR_ZERO),
        "How often in a row a layer's factorisation may fail, with a warning and the previous "
        "factors kept, before an error is raised.",
    ]
    exclude: Annotated[
        Sequence[str],
        Option((), rules.PATTERNS, grouped=False),
        "Shell-style patterns of names of modules that are not preconditioned. "
        '``"role:contraction"`` stands for linear layers with at least twice as many inputs as '
        'outputs, ``"role:expansion"`` for the reverse.',
    ]
    process_group: Annotated[
        "Group | Literal[False] | None",
        Option(None, rules.ANY, grouped=False),
        "The processes that share each batch: a ``ProcessGroup``, a ``DeviceMesh``, or a "
        "sequence of groups to sum over in turn. By default those over which "
        "``DistributedDataParallel`` or ``fully_shard`` reduce the gradients; ``False`` for none.",
    ]
    share_refresh: Annotated[
        bool | None,
        Option(None, grouped=False),
        "Whether these processes divide the layers' factorisations between them and exchange "
        "the factors, or each computes all; by default where that is faster, from a rank of "
        "about 32 on.",
    ]


class NystromOptions(TypedDict, total=False):
    """The Nystrom approximation."""

    rank: Annotated[
        int,
        Option(10, COUNT),
        "Rank r of the approximation; where ``rank >= d`` the exact inverse is used.",
    ]
    sketch: Annotated[
        Literal["columns", "gaussian", "subspace"],
        Option("subspace"),
        'What the covariance is multiplied with: ``"columns"`` of the identity (NysAct-S of '
        'the paper), ``"gaussian"`` (NysAct-G), or ``"subspace"``, the basis of the last '
        "refresh: one step of subspace iteration a window at the same cost.",
    ]
    tail: Annotated[
        bool,
        Option(True),
        "Whether the trace that the approximation misses is spread over the other directions, "
        "which the paper leaves at zero.",
    ]
    power: Annotated[
        float | Literal["auto"],
        Option(1.0, rules.POWER),
        "Power p of the inverse, ``(A + damping I)^-p``; 0.5 is a gentler preconditioner. "
        '``"auto"`` is 1 for convolutions and 0.5 for other layers.',
    ]
    memory: Annotated[
        Literal["window", "long"],
        Option("window"),
        'Whether the sketch restarts with each window, or, with ``"long"`` and the sketch '
        '``"subspace"``, continues as its projection on the new basis.',
    ]
    seed: Annotated[
        int,
        Option(0, rules.WHOLE),
        "Seed of the test matrices; the global random stream is not touched.",
    ]


class UpdateOptions(TypedDict, total=False):
    """The update that preconditioned gradients are fed to."""

    lr: Annotated[
        float | Tensor, Option(0.1, RATE), "Learning rate, a number or a tensor with one element."
    ]
    update: Annotated[
        Literal["sgd", "adamw", "muon"],
        Option("sgd"),
        "What is done with preconditioned gradients.",
    ]
    momentum: Annotated[float, Option(0.9, NOT_NEGATIVE), "Momentum factor of SGD and Muon."]
    nesterov: Annotated[bool, Option(False), "Whether SGD and Muon use Nesterov momentum."]
    weight_decay: Annotated[float, Option(5e-4, NOT_NEGATIVE), "Coefficient of the weight decay."]
    decoupled_weight_decay: Annotated[
        bool,
        Option(False),
        "Whether the decay of SGD acts on the parameters themselves, as it always does in "
        "AdamW and Muon, and not on the preconditioned gradient.",
    ]
    ns_steps: Annotated[int, Option(5, COUNT), "Newton-Schulz iterations of Muon."]
    adjust_lr_fn: Annotated[
        Literal["match_rms_adamw", "original"],
        Option("match_rms_adamw"),
        "How Muon scales the learning rate of an ``(out, d)`` matrix, as in "
        "``torch.optim.Muon``: by ``0.2 sqrt(max(out, d))`` or ``sqrt(max(1, out / d))``.",
    ]
    maximize: Annotated[bool, Option(False), "Whether to maximise the objective."]
    foreach: Annotated[
        bool | None, Option(None), "Use the multi-tensor update; by default as in torch."
    ]
    fused: Annotated[bool | None, Option(None), "Use the fused update; off by default."]
    kl_clip: Annotated[
        float | None,
        Option(None, rules.BOUND, grouped=False),
        "Bound kappa on the squared length of an SGD step in the curvature's metric: all "
        "preconditioned gradients are scaled by ``min(1, sqrt(kappa / (lr^2 <P(G), G>)))``; "
        "``None`` for no bound.",
    ]


class AdamWOptions(TypedDict, total=False):
    """Settings of AdamW, which the groups with ``update="adamw"`` of every optimizer may set."""

    betas: Annotated[
        tuple[float, float], Option((0.9, 0.999), rules.BETAS), "Decays of AdamW's two averages."
    ]
    eps: Annotated[float, Option(1e-8, NOT_NEGATIVE), "Added to the denominator of AdamW."]


class MuonOptions(TypedDict, total=False):
    """AdamW for the parameters that Muon leaves out."""

    adamw_lr: Annotated[
        float | Tensor,
        Option(3e-3, RATE, grouped=False),
        "Learning rate of AdamW for the other parameters.",
    ]
    adamw_betas: Annotated[
        tuple[float, float],
        Option((0.9, 0.99), rules.BETAS, grouped=False),
        "Decays of its two averages.",
    ]
    adamw_weight_decay: Annotated[
        float, Option(0.0, NOT_NEGATIVE, grouped=False), "Coefficient of its weight decay."
    ]


class LossOptions(TypedDict, total=False):
    """What two-sided curvatures must know of the loss."""

    loss_scale: Annotated[
        Callable[[], float] | None,
        Option(None, rules.FUNCTION, grouped=False),
        "Returns the factor of a scaled loss: ``scaler.get_scale`` of a ``GradScaler``.",
    ]
