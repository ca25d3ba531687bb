"""NysAct's relatives: other curvatures on the same engine."""

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

from torch import nn

from nysact.curvature import Curvature, Exact, Kronecker, KroneckerVectors, SampledKronecker
from nysact.optim.optimizer import PreconditionedOptimizer
from nysact.optim.rules import COUNT
from nysact.optim.settings import EngineOptions, LossOptions, Option, UpdateOptions

# Those of the NysAct paper's table 7.
_TWO_SIDED = {"damping": 0.03, "kl_clip": 1e-3}
# The running average of the authors' code has 0.95 of the new vectors, which act at once.
_AT_ONCE = {**_TWO_SIDED, "stat_decay": 0.05, "inv_interval": 5}


class FOOFOptions(UpdateOptions, EngineOptions, total=False):
    """Options of :class:`nysact.FOOF`."""


class TwoSidedOptions(FOOFOptions, LossOptions, total=False):
    """Options of the optimizers that observe the gradients of outputs too."""


class FOOF(PreconditionedOptimizer, options=FOOFOptions):
    """SGD with momentum on gradients multiplied by the exact damped inverse covariance.

    Implements FOOF (Benzing, "Gradient Descent on Neurons and its Link to Approximate
    Second-Order Optimization", ICML 2022): ``G (A + damping I)^-1``. It is what
    :class:`nysact.NysAct` approximates, at the price of two ``d x d`` matrices of state a layer
    and an eigenproblem of that size a refresh. The defaults are those of the NysAct paper's
    table 7.
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[FOOFOptions]
    ) -> None:
        super().__init__(model, params, **options)

    @staticmethod
    def _curvature(options: Mapping[str, Any]) -> Curvature:
        return Exact()


class _TwoSidedOptimizer(PreconditionedOptimizer):
    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[TwoSidedOptions]
    ) -> None:
        super().__init__(model, params, **options)


def _unscaled() -> float:
    return 1.0


class KFAC(_TwoSidedOptimizer, options=TwoSidedOptions, defaults=_TWO_SIDED):
    """SGD with momentum on gradients multiplied by the inverse of K-FAC's Fisher approximation.

    Implements K-FAC (Martens and Grosse, "Optimizing neural networks with Kronecker-factored
    approximate curvature", ICML 2015; convolutions as in Grosse and Martens, ICML 2016):
    ``(B + sqrt(gamma)/pi I)^-1 G (A + pi sqrt(gamma) I)^-1`` with the empirical Fisher's B and
    gamma the damping. The loss is taken to be a mean over samples. Layers whose output gradient
    can't be observed get the plain update. The defaults are those of the NysAct paper's table 7.
    """

    @staticmethod
    def _curvature(options: Mapping[str, Any]) -> Curvature:
        return Kronecker(options["loss_scale"] or _unscaled)


class Eva(_TwoSidedOptimizer, options=TwoSidedOptions, defaults=_AT_ONCE):
    """SGD with momentum on gradients multiplied by the inverse of Eva's rank-one curvature.

    Implements Eva (Zhang, Shi and Li, "Eva: Practical second-order optimization with
    Kronecker-vectorized approximation", ICLR 2023): with the mean row a and the mean output
    gradient b, ``(G - (b^T G a) / (gamma + |a|^2 |b|^2) b a^T) / gamma``. The state is two
    vectors a layer. The loss is taken to be a mean over samples. Layers whose output gradient
    can't be observed get the plain update. The defaults are those of the NysAct paper's table 7
    but for two, in which they follow the authors' code: the average is 0.95 new, and it acts at
    once (``inv_interval`` is ``cov_interval`` unless it is set).
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[TwoSidedOptions]
    ) -> None:
        if "cov_interval" in options:
            options.setdefault("inv_interval", options["cov_interval"])
        super().__init__(model, params, **options)

    @staticmethod
    def _curvature(options: Mapping[str, Any]) -> Curvature:
        return KroneckerVectors(options["loss_scale"] or _unscaled)


class SKFACOptions(TwoSidedOptions, total=False):
    """Options of :class:`nysact.SKFAC`."""

    rank: Annotated[int, Option(128, COUNT), "Number m of samples kept."]


class SKFAC(
    PreconditionedOptimizer,
    options=SKFACOptions,
    defaults={**_TWO_SIDED, "stat_decay": 0.0, "subsample": 1},
):
    """SGD with momentum on gradients multiplied by K-FAC's inverse of a few samples.

    Implements SKFAC (Tang et al., "SKFAC: Training neural networks with faster Kronecker-factored
    approximate curvature", CVPR 2021): both covariances are those of m samples, each averaged or
    summed over its positions, so that an m x m problem inverts them. Rows of different batches
    can't be averaged, so the statistics are those of the first samples of the batch before a
    refresh: ``stat_decay`` and ``subsample`` can't be set. The loss is taken to be a mean over
    samples. Layers whose output gradient can't be observed get the plain update.
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[SKFACOptions]
    ) -> None:
        for name in ("stat_decay", "subsample"):
            if name in options:
                raise TypeError(f"SKFAC has no {name}: it keeps the first samples of one batch")
        super().__init__(model, params, **options)

    @staticmethod
    def _curvature(options: Mapping[str, Any]) -> Curvature:
        return SampledKronecker(options["rank"], options["loss_scale"] or _unscaled)
