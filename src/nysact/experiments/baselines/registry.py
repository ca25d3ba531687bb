"""Every optimizer that can be compared: its name, how it is made, and its default settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, NysAdamW, NysMuon
from nysact.experiments.baselines.kbfgs import KBFGS
from nysact.experiments.baselines.muon import MuonWithAdamW, NewtonMuon
from nysact.experiments.baselines.optimizer import trainable
from nysact.experiments.baselines.released import (
    ReleasedEva,
    ReleasedFOOF,
    ReleasedKFAC,
    ReleasedNysAct,
)
from nysact.experiments.baselines.sketchysgd import SketchySGD
from nysact.experiments.baselines.window import GGT, MFAC
from nysact.experiments.errors import ExperimentError, unknown

Settings = Mapping[str, Any]
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Baseline:
    """An optimizer that can be compared."""

    title: str
    make: Callable[..., Optimizer]  # from a model and its settings
    defaults: Settings  # every setting that the experiments use
    source: str  # of the method and of the settings

    def settings(self, overrides: Settings) -> dict[str, Any]:
        """Complete settings by the defaults."""
        for name, value in overrides.items():
            if name not in self.defaults:
                raise ExperimentError(f"{self.title} has no setting {unknown(name, self.defaults)}")
            default = self.defaults[name]
            if not alike(value, default):
                kind = f"a list of {len(default)} numbers" if isinstance(default, tuple) else None
                raise ExperimentError(
                    f"{self.title}: {name}={value!r}, expected {kind or KINDS[type(default)]}"
                )
        return {**self.defaults, **overrides}

    def build(self, model: nn.Module, **overrides: Any) -> Optimizer:
        """Make the optimizer for a model, for :func:`~.optimizer.training_step`."""
        return self.make(model, **self.settings(overrides))

    def build_for_run(
        self, model: nn.Module, overrides: Settings, seed: int, *, decay_vectors: bool
    ) -> Optimizer:
        """Make the optimizer for a run: seeded if it draws, without weight decay of vectors."""
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
    groups: list[dict[str, Any]] = [
        {"params": [param for param in trainable(model) if param.dim() > 1]},
        {"params": [param for param in trainable(model) if param.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def alike(value: Any, default: Any) -> bool:
    """Whether a value is of the type of a default; a whole number is a number too."""
    if default == "auto":
        return value == "auto" or type(value) is int
    if isinstance(default, tuple):
        lists = isinstance(value, tuple | list) and len(value) == len(default)
        return lists and all(map(alike, value, default))
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def imported(module: str, name: str) -> Callable[..., Optimizer]:
    """Name an optimizer whose module is slow to import, and imported when it is made."""
    return lambda *args, **settings: getattr(import_module(module), name)(*args, **settings)


def of_params(optimizer: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Make an optimizer that takes parameters take a model."""

    def make(model: nn.Module, params: Any = None, **settings: Any) -> Optimizer:
        return optimizer(model.parameters() if params is None else params, **settings)

    return make


def drawing(optimizer: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Make an optimizer that takes parameters and draws take a model and a seed."""
    return lambda model, seed=0, **settings: optimizer(model.parameters(), seed=seed, **settings)


def defaults_of(optimizer: Callable[..., Optimizer]) -> dict[str, Any]:
    """Read the default settings of an optimizer that is written here off its signature."""
    parameters = signature(optimizer).parameters.items()
    return {n: p.default for n, p in parameters if p.default is not Parameter.empty and n != "seed"}


NYSACT = "Seung, Lee and Ko, IEEE BigData 2024"
RELEASED = f"{NYSACT}, as its code computes it"
TABLE = "settings of the NysAct paper's table 7"
INTERVALS: Settings = {"cov_interval": 5, "inv_interval": 50}
SAMPLES: Settings = {"subsample": "auto"}  # 1 for all of a batch
AT_ONCE: Settings = {"stat_decay": 0.05, "cov_interval": 5, "inv_interval": 5}
# The NysAct paper's settings for CIFAR (its table 7), for SGD and for what steps like it.
MOMENTUM: Settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
ADAM: Settings = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 5e-4}
ACTIVATIONS: Settings = {**MOMENTUM, "damping": 1.0, "stat_decay": 0.95, **INTERVALS}
SKETCHED: Settings = {**ACTIVATIONS, "rank": 10}
COLUMNS: Settings = {**SKETCHED, "sketch": "columns"}
GAUSSIAN: Settings = {**SKETCHED, "sketch": "gaussian"}
CLIPPED: Settings = {**MOMENTUM, "damping": 0.03, "kl_clip": 1e-3, **INTERVALS}
KRONECKER: Settings = {**CLIPPED, "stat_decay": 0.95}
EVA: Settings = {**CLIPPED, **AT_ONCE}
TRACE: Settings = {"damping": 0.2, "damping_scale": "trace", "stat_decay": 0.95, **INTERVALS}
GENTLE: Settings = {"power": "auto", "memory": "long", "rank": 10}
MUON: Settings = {
    **{"lr": 0.02, "momentum": 0.95, "weight_decay": 0.0},
    **{"adamw_lr": 3e-3, "adamw_betas": (0.9, 0.99), "adamw_weight_decay": 0.0},
    **TRACE,
}

BASELINES: Mapping[str, Baseline] = {
    "sgd": Baseline("SGD", of_params(SGD), {**MOMENTUM, "nesterov": False}, f"torch; {TABLE}"),
    "adam": Baseline("Adam", of_params(Adam), ADAM, f"Kingma and Ba, ICLR 2015; torch; {TABLE}"),
    "adamw": Baseline(
        "AdamW",
        of_params(AdamW),
        {**ADAM, "weight_decay": 0.05},
        f"Loshchilov and Hutter, ICLR 2019; torch; {TABLE}",
    ),
    "muon": Baseline(
        "Muon",
        MuonWithAdamW,
        defaults_of(MuonWithAdamW),
        "Jordan et al., 2024; torch, with AdamW on the first and last weight, biases and norms",
    ),
    "adahessian": Baseline(
        "AdaHessian",
        drawing(imported("nysact.experiments.baselines.libraries", "AdaHessian")),
        {**ADAM, "lr": 0.15, "hessian_power": 1.0, "eps": 1e-4},
        "Yao et al., AAAI 2021, with its settings; pytorch_optimizer",
    ),
    "shampoo": Baseline(
        "Shampoo",
        of_params(imported("pytorch_optimizer", "Shampoo")),
        {"lr": 0.3, "momentum": 0.0, "weight_decay": 5e-4, "preconditioning_compute_steps": 1},
        "Gupta, Koren and Singer, ICML 2018; rate tuned here; pytorch_optimizer, whose momentum "
        "mixes raw with preconditioned gradients and is left out",
    ),
    "soap": Baseline(
        "SOAP",
        of_params(imported("pytorch_optimizer", "SOAP")),
        {"lr": 3e-3, "betas": (0.95, 0.95), "weight_decay": 0.01, "precondition_frequency": 10},
        "Vyas et al., ICLR 2025, with its settings; pytorch_optimizer",
    ),
    "sketchysgd": Baseline(
        "SketchySGD",
        drawing(SketchySGD),
        defaults_of(SketchySGD),
        "Frangella et al., SIMODS 2024, with its settings for networks; rate tuned here",
    ),
    "ggt": Baseline(
        "GGT",
        of_params(GGT),
        defaults_of(GGT),
        "Agarwal et al., ICML 2019, with its window for CIFAR-10; momentum after preconditioning, "
        "where its code has it before; rate tuned here",
    ),
    "mfac": Baseline(
        "M-FAC",
        of_params(MFAC),
        defaults_of(MFAC),
        "Frantar, Kurtic and Alistarh, NeurIPS 2021, with its settings for CIFAR-10 but for the "
        "damping, here tuned",
    ),
    "kbfgs": Baseline(
        "K-BFGS(L)",
        KBFGS,
        defaults_of(KBFGS),
        "Goldfarb, Ren and Bahamou, NeurIPS 2020, with its decays and memory; input covariance "
        "from the first batch, where its code takes all data; rate and damping tuned here",
    ),
    "foof": Baseline("FOOF", FOOF, {**ACTIVATIONS, **SAMPLES}, f"Benzing, ICML 2022; {TABLE}"),
    "kfac": Baseline(
        "K-FAC", KFAC, {**KRONECKER, **SAMPLES}, f"Martens and Grosse, ICML 2015; {TABLE}"
    ),
    "eva": Baseline(
        "Eva",
        Eva,
        {**EVA, **SAMPLES},
        f"Zhang et al., ICLR 2023; {TABLE}, but for decay and interval of its vectors: as in its "
        "code, they are 0.95 new and act at once",
    ),
    "skfac": Baseline(
        "SKFAC", SKFAC, {**CLIPPED, "rank": 128}, "Tang et al., CVPR 2021; settings of K-FAC"
    ),
    "released-foof": Baseline("released FOOF", ReleasedFOOF, ACTIVATIONS, RELEASED),
    "released-kfac": Baseline("released K-FAC", ReleasedKFAC, KRONECKER, RELEASED),
    "released-eva": Baseline("released Eva", ReleasedEva, EVA, RELEASED),
    "released-columns": Baseline("released NysAct-S", ReleasedNysAct, COLUMNS, RELEASED),
    "released-gaussian": Baseline("released NysAct-G", ReleasedNysAct, GAUSSIAN, RELEASED),
    "nysact-columns": Baseline(
        "NysAct, columns", NysAct, {**COLUMNS, **SAMPLES, "tail": False}, f"{NYSACT}: NysAct-S"
    ),
    "nysact-gaussian": Baseline(
        "NysAct, Gaussian", NysAct, {**GAUSSIAN, **SAMPLES, "tail": False}, f"{NYSACT}: NysAct-G"
    ),
    "nysact": Baseline(
        "NysAct",
        NysAct,
        {**SKETCHED, **SAMPLES, "sketch": "subspace", "tail": True},
        f"{NYSACT}, with this library's own sketch and tail",
    ),
    "newton-muon": Baseline(
        "Newton-Muon",
        NewtonMuon,
        MUON,
        "Du and Su, arXiv 2604.01472, with its damping; rates and intervals of NysMuon",
    ),
    "nysmuon": Baseline(
        "NysMuon", NysMuon, {**MUON, **GENTLE, "damping": 1.0}, "this library's defaults"
    ),
    "nysadamw": Baseline(
        "NysAdamW",
        NysAdamW,
        {
            "lr": 1e-3,
            "betas": (0.9, 0.999),
            "weight_decay": 0.01,
            **TRACE,
            **GENTLE,
            "damping": 0.5,
        },
        "this library's defaults",
    ),
}


def find(name: str) -> Baseline:
    """Look an optimizer up by its name, or name the nearest."""
    if name not in BASELINES:
        raise ExperimentError(f"there is no optimizer {unknown(name, BASELINES)}")
    return BASELINES[name]


def build(name: str, model: nn.Module, **overrides: Any) -> Optimizer:
    """Make an optimizer by its name, with settings that replace the defaults."""
    return find(name).build(model, **overrides)
