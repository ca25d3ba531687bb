"""Every optimizer that can be compared: its name, how it is made, and its default settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct
from nysact.experiments.baselines.ggt import GGT
from nysact.experiments.baselines.kbfgs import KBFGS
from nysact.experiments.baselines.mfac import MFAC
from nysact.experiments.baselines.muon import MuonWithAdamW
from nysact.experiments.baselines.needs import Needs
from nysact.experiments.baselines.released import ReleasedNysAct
from nysact.experiments.baselines.sketchysgd import SketchySGD
from nysact.experiments.errors import ExperimentError, unknown


@dataclass(frozen=True)
class Baseline:
    """An optimizer that can be compared.

    Args:
        title: What tables call it.
        make: Makes it from a model and its settings.
        defaults: Every setting that the experiments use, the learning rate ``lr`` among them.
        source: Where the method, and where the settings, are from.
        needs: What its steps need; see :func:`~.needs.training_step`.
    """

    title: str
    make: Callable[..., Optimizer]
    defaults: Mapping[str, Any]
    source: str
    needs: Needs = Needs.GRADIENT

    def settings(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Complete settings by the defaults.

        Args:
            overrides: Settings in the place of the defaults.

        Returns:
            A value for every setting.

        Raises:
            ExperimentError: If there is no such setting, or its value is of another type.
        """
        for name, value in overrides.items():
            if name not in self.defaults:
                raise ExperimentError(f"{self.title} has no setting {unknown(name, self.defaults)}")
            if not alike(value, self.defaults[name]):
                raise ExperimentError(
                    f"{self.title}: {name}={value!r}, expected {kind_of(self.defaults[name])}"
                )
        return {**self.defaults, **overrides}

    def build(self, model: nn.Module, **overrides: Any) -> Optimizer:
        """Make the optimizer for a model.

        Args:
            model: The model.
            **overrides: Settings in the place of the defaults.

        Returns:
            The optimizer, for :func:`~.needs.training_step`.
        """
        return self.make(model, **self.settings(overrides))

    def build_for_run(
        self, model: nn.Module, overrides: Mapping[str, Any], seed: int, *, decay_vectors: bool
    ) -> Optimizer:
        """Make the optimizer for one of several runs.

        Args:
            model: The model.
            overrides: Settings in the place of the defaults.
            seed: Seed of what the optimizer draws, if it draws.
            decay_vectors: Whether weight decay acts on norms, biases and other vectors too.

        Returns:
            The optimizer, for :func:`~.needs.training_step`.

        Raises:
            ExperimentError: If it cannot leave vectors out of its weight decay.
        """
        settings = self.settings(overrides)
        takes = signature(self.make).parameters
        if "seed" in takes:
            settings["seed"] = seed
        if not decay_vectors:
            if "params" not in takes:
                raise ExperimentError(
                    f"{self.title} takes no parameter groups, so its weight decay acts on vectors "
                    "too: set optimizer.decay_vectors=true"
                )
            settings["params"] = without_decay_of_vectors(model)
        return self.make(model, **settings)


def without_decay_of_vectors(model: nn.Module) -> list[dict[str, Any]]:
    """Put a model's trainable parameters into two groups, vectors without weight decay."""
    params = [param for param in model.parameters() if param.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [param for param in params if param.dim() > 1]},
        {"params": [param for param in params if param.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def alike(value: Any, default: Any) -> bool:
    """Tell whether a value is of the type of a default; a whole number is a number too."""
    if isinstance(default, tuple):
        return (
            isinstance(value, tuple | list)
            and len(value) == len(default)
            and all(map(alike, value, default))
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def kind_of(default: Any) -> str:
    """Write what :func:`alike` takes."""
    if isinstance(default, tuple):
        return f"a list of {len(default)} numbers"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names[type(default)]


def of_params(optimizer: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Make an optimizer that takes parameters take a model."""

    def make(model: nn.Module, params: Any = None, **settings: Any) -> Optimizer:
        return optimizer(model.parameters() if params is None else params, **settings)

    return make


def adahessian(model: nn.Module, seed: int = 0, **settings: Any) -> Optimizer:
    """Make an AdaHessian; the package is imported where it is needed, for it is slow to load."""
    from nysact.experiments.baselines.libraries import AdaHessian

    return AdaHessian(model.parameters(), seed=seed, **settings)


def sketchysgd(model: nn.Module, seed: int = 0, **settings: Any) -> Optimizer:
    """Make a SketchySGD."""
    return SketchySGD(model.parameters(), seed=seed, **settings)


def shampoo(model: nn.Module, **settings: Any) -> Optimizer:
    """Make a Shampoo."""
    from pytorch_optimizer import Shampoo

    return Shampoo(model.parameters(), **settings)


def soap(model: nn.Module, **settings: Any) -> Optimizer:
    """Make a SOAP."""
    from pytorch_optimizer import SOAP

    return SOAP(model.parameters(), **settings)


NYSACT = "Seung, Lee and Ko, IEEE BigData 2024"
TABLE = "settings of the NysAct paper's table 7"
INTERVALS: Mapping[str, Any] = {"cov_interval": 5, "inv_interval": 50}
# The NysAct paper's settings for CIFAR (its table 7), for SGD and for what steps like it.
MOMENTUM: Mapping[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
ACTIVATIONS: Mapping[str, Any] = {**MOMENTUM, "damping": 1.0, "stat_decay": 0.95, **INTERVALS}
SKETCHED: Mapping[str, Any] = {**ACTIVATIONS, "rank": 10}
CLIPPED: Mapping[str, Any] = {**MOMENTUM, "damping": 0.03, "kl_clip": 1e-3, **INTERVALS}

BASELINES: Mapping[str, Baseline] = {
    "sgd": Baseline(
        "SGD",
        of_params(SGD),
        {**MOMENTUM, "nesterov": False},
        f"torch; {TABLE}",
    ),
    "adam": Baseline(
        "Adam",
        of_params(Adam),
        {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 5e-4},
        f"Kingma and Ba, ICLR 2015; torch; {TABLE}",
    ),
    "adamw": Baseline(
        "AdamW",
        of_params(AdamW),
        {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.05},
        f"Loshchilov and Hutter, ICLR 2019; torch; {TABLE}",
    ),
    "muon": Baseline(
        "Muon",
        MuonWithAdamW,
        {
            "lr": 0.02,
            "momentum": 0.95,
            "weight_decay": 0.1,
            "adamw_lr": 1e-3,
            "adamw_betas": (0.9, 0.999),
            "adamw_weight_decay": 0.05,
        },
        "Jordan et al., 2024; torch, with AdamW on the first and last weight, biases and norms",
    ),
    "adahessian": Baseline(
        "AdaHessian",
        adahessian,
        {
            "lr": 0.05,
            "betas": (0.9, 0.999),
            "weight_decay": 5e-4,
            "hessian_power": 1.0,
            "eps": 1e-4,
        },
        "Yao et al., AAAI 2021, with its settings but for the rate, here tuned; pytorch_optimizer",
        Needs.GRAPH,
    ),
    "shampoo": Baseline(
        "Shampoo",
        shampoo,
        {"lr": 0.3, "momentum": 0.0, "weight_decay": 5e-4, "preconditioning_compute_steps": 1},
        "Gupta, Koren and Singer, ICML 2018; rate tuned here; pytorch_optimizer, whose momentum "
        "mixes raw with preconditioned gradients and is left out",
    ),
    "soap": Baseline(
        "SOAP",
        soap,
        {
            "lr": 3e-3,
            "betas": (0.95, 0.95),
            "weight_decay": 0.01,
            "precondition_frequency": 10,
        },
        "Vyas et al., ICLR 2025, with its settings; pytorch_optimizer",
    ),
    "sketchysgd": Baseline(
        "SketchySGD",
        sketchysgd,
        {
            "lr": 0.03,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "rank": 10,
            "rho": 1.0,
            "update_interval": 50,
        },
        "Frangella et al., SIMODS 2024, with its settings for networks; rate tuned here",
        Needs.GRAPH,
    ),
    "ggt": Baseline(
        "GGT",
        of_params(GGT),
        {
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "window": 200,
            "beta2": 1.0,
            "eps": 1e-4,
        },
        "Agarwal et al., ICML 2019, with its window for CIFAR-10; rate tuned here",
    ),
    "mfac": Baseline(
        "M-FAC",
        of_params(MFAC),
        {"lr": 1e-3, "momentum": 0.9, "weight_decay": 3e-3, "window": 512, "damping": 1e-3},
        "Frantar, Kurtic and Alistarh, NeurIPS 2021, with its settings for CIFAR-10 but for the "
        "damping, here tuned",
    ),
    "kbfgs": Baseline(
        "K-BFGS(L)",
        KBFGS,
        {
            "lr": 3.0,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "damping": 0.3,
            "stat_decay": 0.9,
            "memory": 100,
        },
        "Goldfarb, Ren and Bahamou, NeurIPS 2020, with its decays and memory; rate and damping "
        "tuned here",
        Needs.CLOSURE,
    ),
    "foof": Baseline(
        "FOOF",
        FOOF,
        ACTIVATIONS,
        f"Benzing, ICML 2022; {TABLE}",
    ),
    "kfac": Baseline(
        "K-FAC",
        KFAC,
        {**CLIPPED, "stat_decay": 0.95},
        f"Martens and Grosse, ICML 2015; {TABLE}",
    ),
    "eva": Baseline(
        "Eva",
        Eva,
        {**CLIPPED, "stat_decay": 0.95},
        f"Zhang et al., ICLR 2023; {TABLE}",
    ),
    "skfac": Baseline(
        "SKFAC",
        SKFAC,
        {**CLIPPED, "rank": 128},
        "Tang et al., CVPR 2021; settings of K-FAC",
    ),
    "released-columns": Baseline(
        "released NysAct-S",
        ReleasedNysAct,
        {**SKETCHED, "sketch": "columns"},
        f"{NYSACT}, as its code computes it",
    ),
    "released-gaussian": Baseline(
        "released NysAct-G",
        ReleasedNysAct,
        {**SKETCHED, "sketch": "gaussian"},
        f"{NYSACT}, as its code computes it",
    ),
    "nysact-columns": Baseline(
        "NysAct, columns",
        NysAct,
        {**SKETCHED, "sketch": "columns", "tail": False},
        f"{NYSACT}: NysAct-S",
    ),
    "nysact-gaussian": Baseline(
        "NysAct, Gaussian",
        NysAct,
        {**SKETCHED, "sketch": "gaussian", "tail": False},
        f"{NYSACT}: NysAct-G",
    ),
    "nysact": Baseline(
        "NysAct",
        NysAct,
        {**SKETCHED, "sketch": "subspace", "tail": True},
        f"{NYSACT}, with this library's own sketch and tail",
    ),
}


def find(name: str) -> Baseline:
    """Look an optimizer up.

    Args:
        name: A key of :data:`BASELINES`.

    Returns:
        Its entry.

    Raises:
        ExperimentError: If there is none; the message names the nearest.
    """
    if name not in BASELINES:
        raise ExperimentError(f"there is no optimizer {unknown(name, BASELINES)}")
    return BASELINES[name]


def build(name: str, model: nn.Module, **overrides: Any) -> Optimizer:
    """Make an optimizer by its name.

    Args:
        name: A key of :data:`BASELINES`.
        model: The model.
        **overrides: Settings in the place of the defaults.

    Returns:
        The optimizer, for :func:`~.needs.training_step`.
    """
    return find(name).build(model, **overrides)


def in_words(settings: Mapping[str, Any]) -> str:
    """Write settings out, such as ``momentum 0.9, weight decay 5e-4``."""
    return ", ".join(f"{name.replace('_', ' ')} {number(v)}" for name, v in settings.items())


def number(value: Any) -> str:
    """Write a number as short as it can be, and anything else as it is."""
    if isinstance(value, tuple):
        return " and ".join(number(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower()
    short = f"{value:g}"
    power = f"{value:.0e}".replace("e-0", "e-")
    return power if 0 < value < 0.01 and float(power) == value else short
