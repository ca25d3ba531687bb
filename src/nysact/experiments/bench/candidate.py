"""The optimizers that are timed, and which of their steps are costly."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

from torch import nn
from torch.optim import SGD, Optimizer

from nysact.experiments.baselines import Baseline, find
from nysact.experiments.baselines.registry import of_params
from nysact.experiments.config.assignments import parse_assignments
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.formatting import describe_settings

Kind = Literal["plain", "statistics", "refresh"]
KINDS: tuple[Kind, ...] = ("plain", "statistics", "refresh")

# Settings that count the steps between costly ones; optimizers name them differently.
REFRESH_INTERVALS = ("inv_interval", "update_interval", "precondition_frequency")
STATISTICS_INTERVAL = "cov_interval"


@dataclass(frozen=True)
class Schedule:
    """Steps between statistics and between refreshes, 0 for never."""

    statistics: int
    refresh: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Read the schedule from an optimizer's settings."""
        refreshes = [settings[name] for name in REFRESH_INTERVALS if name in settings]
        return cls(settings.get(STATISTICS_INTERVAL, 0), *(refreshes or [0]))

    def kind(self, step: int) -> Kind:
        """Name the costliest thing that the step with this number (from 0) does."""
        if self.refresh and step % self.refresh == 0:
            return "refresh"
        return "statistics" if self.statistics and step % self.statistics == 0 else "plain"

    def counts(self) -> dict[Kind, int]:
        """Count the steps of each kind in a cycle."""
        kinds = [self.kind(step) for step in range(cycle([self]))]
        return {kind: kinds.count(kind) for kind in KINDS}


def cycle(schedules: Iterable[Schedule]) -> int:
    """Return the period of all schedules together: 1 where none has an interval."""
    return math.lcm(*(n or 1 for of in schedules for n in (of.statistics, of.refresh)))


REFERENCE = "sgd"
# The batch is noise, which the registry's learning rates would fit until gradients vanish.
RATE = 0.1


@dataclass(frozen=True)
class Candidate:
    """An optimizer of the registry with all its settings."""

    name: str
    baseline: Baseline
    settings: dict[str, Any]

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.baseline.title

    @property
    def schedule(self) -> Schedule:
        """When it takes statistics and refreshes factors."""
        return Schedule.of(self.settings)

    def build(self, model: nn.Module) -> Optimizer:
        """Make the optimizer for a model."""
        return self.baseline.make(model, **self.settings)

    def with_intervals(self, statistics: int, refresh: int) -> Self:
        """Make a copy with these intervals, where it has any."""
        changes = dict.fromkeys(REFRESH_INTERVALS, refresh) | {STATISTICS_INTERVAL: statistics}
        return replace(self, settings={k: changes.get(k, v) for k, v in self.settings.items()})

    def describe(self) -> str:
        """Write out the settings that cost time: rank and intervals."""
        costly = ("rank", STATISTICS_INTERVAL, *REFRESH_INTERVALS)
        return describe_settings({of: self.settings[of] for of in costly if of in self.settings})


def candidates(
    names: Sequence[str],
    shared: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Candidate]:
    """Look optimizers up, SGD first in any case; their own settings win over the shared ones."""
    shared, own = shared or {}, own or {}
    chosen = list(dict.fromkeys([REFERENCE, *names]))
    for name in own:
        if name not in chosen:
            raise ExperimentError(
                f"--set {name}: not an optimizer of this run; expected one of {', '.join(chosen)}"
            )
    found = [candidate(name, shared, own.get(name, {})) for name in chosen]
    for setting in shared:
        if not any(setting in of.settings for of in found):
            raise ExperimentError(
                f"--{setting.replace('_', '-')}: none of {', '.join(chosen)} has this setting; "
                "leave it out"
            )
    return found


def candidate(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Candidate:
    """Look one optimizer up; it takes the shared settings that it has, and must have its own."""
    baseline = find(name)
    if name == REFERENCE:
        baseline = replace(baseline, make=of_params(partial(SGD, foreach=True)))
    for setting in own:
        if setting not in baseline.defaults:
            raise ExperimentError(
                f"--set {name}.{setting}: {baseline.title} has no setting "
                f"{unknown(setting, baseline.defaults)}"
            )
    rate = {"lr": RATE * baseline.defaults["lr"]}
    common = {key: value for key, value in shared.items() if key in baseline.defaults}
    return Candidate(name, baseline, {**baseline.defaults, **rate, **common, **own})


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read settings of single optimizers, such as ``nysact.rank=50``, by optimizer."""
    settings: dict[str, dict[str, Any]] = {}
    for key, value in parse_assignments(texts, "--set", "nysact.rank=50").items():
        name, _, setting = key.partition(".")
        if not (name and setting):
            raise ExperimentError(f"--set {key}: expected OPTIMIZER.SETTING=VALUE")
        settings.setdefault(name, {})[setting] = value
    return settings
