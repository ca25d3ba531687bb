"""The optimizers that are timed, by their names and settings in the registry."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from torch import nn
from torch.optim import SGD, Optimizer

from nysact.experiments.assignments import parse_value
from nysact.experiments.baselines import Baseline, find
from nysact.experiments.baselines.registry import of_params
from nysact.experiments.bench.schedule import REFRESH_INTERVALS, STATISTICS_INTERVAL, Schedule
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.formatting import describe_settings

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
        return self.baseline.build(model, **self.settings)

    def with_intervals(self, statistics: int, refresh: int) -> Self:
        """Make a copy with these intervals, where it has any."""
        changes = dict.fromkeys(REFRESH_INTERVALS, refresh) | {STATISTICS_INTERVAL: statistics}
        known = {name: value for name, value in changes.items() if name in self.settings}
        return replace(self, settings={**self.settings, **known})

    def describe(self) -> str:
        """Write out the settings that cost time: rank and intervals."""
        costly = ("rank", STATISTICS_INTERVAL, *REFRESH_INTERVALS)
        return describe_settings(
            {key: self.settings[key] for key in costly if key in self.settings}
        )


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
    for text in texts:
        key, _, value = text.partition("=")
        name, _, setting = key.partition(".")
        if not (name and setting and value):
            raise ExperimentError(
                f"--set {text}: expected OPTIMIZER.SETTING=VALUE, such as nysact.rank=50"
            )
        settings.setdefault(name, {})[setting] = parse_value(value)
    return settings
