"""The optimizers that are timed, by their names and settings in the registry."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn
from torch.optim import SGD, Optimizer

from nysact.experiments.baselines import Baseline, find
from nysact.experiments.baselines.registry import in_words, of_params
from nysact.experiments.bench.schedule import (
    REFRESH_INTERVALS,
    STATISTICS_INTERVAL,
    Schedule,
)
from nysact.experiments.errors import ExperimentError, unknown

REFERENCE = "sgd"
# The batch is noise, which the registry's learning rates would fit until gradients vanish.
RATE = 0.1


@dataclass(frozen=True)
class Contender:
    """An optimizer that is timed.

    Args:
        name: Its name in the registry.
        baseline: How it is made.
        settings: All its settings.
    """

    name: str
    baseline: Baseline
    settings: dict[str, Any]

    @property
    def schedule(self) -> Schedule:
        """When it takes statistics and refreshes factors."""
        return Schedule.of(self.settings)

    def build(self, model: nn.Module) -> Optimizer:
        """Make the optimizer for a model."""
        return self.baseline.build(model, **self.settings)

    def with_intervals(self, statistics: int, refresh: int) -> "Contender":
        """Make a copy whose costly steps come sooner, where it has any."""
        changes = dict.fromkeys(REFRESH_INTERVALS, refresh) | {STATISTICS_INTERVAL: statistics}
        known = {name: value for name, value in changes.items() if name in self.settings}
        return replace(self, settings={**self.settings, **known})

    def describe(self) -> str:
        """Write out what costs time: rank and intervals."""
        chosen = ("rank", STATISTICS_INTERVAL, *REFRESH_INTERVALS)
        return in_words({name: self.settings[name] for name in chosen if name in self.settings})


def contenders(
    names: Sequence[str],
    shared: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Contender]:
    """Look optimizers up and settle their settings.

    Args:
        names: Their names in the registry. SGD always takes part, and comes first.
        shared: Settings for every optimizer that has them.
        own: Settings of single optimizers, by name; they win over the shared ones.

    Returns:
        The contenders.

    Raises:
        ExperimentError: If there is no such optimizer or setting, or one is given in vain.
    """
    shared, own = shared or {}, own or {}
    chosen = list(dict.fromkeys([REFERENCE, *names]))
    for name in own:
        if name not in chosen:
            raise ExperimentError(f"--set {name}: no optimizer of this run; expected one of "
                                  f"{', '.join(chosen)}")  # fmt: skip
    made = [contender(name, shared, own.get(name, {})) for name in chosen]
    for setting in shared:
        if not any(setting in of.settings for of in made):
            raise ExperimentError(f"--{setting.replace('_', '-')}: none of {', '.join(chosen)} "
                                  "has this setting; leave it out")  # fmt: skip
    return made


def contender(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Contender:
    """Settle the settings of one optimizer.

    Args:
        name: Its name in the registry.
        shared: Settings that it takes if it has them.
        own: Settings that it must have.

    Returns:
        The contender.

    Raises:
        ExperimentError: If there is no such optimizer or setting.
    """
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
    return Contender(name, baseline, {**baseline.defaults, **rate, **common, **own})


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read settings of single optimizers.

    Args:
        texts: Such as ``"nysact.rank=50"``.

    Returns:
        Settings by optimizer.

    Raises:
        ExperimentError: If one has another form.
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, dot, setting = key.partition(".")
        if not (equals and dot and name and setting and value):
            raise ExperimentError(f"--set {text}: expected OPTIMIZER.SETTING=VALUE, such as "
                                  "nysact.rank=50")  # fmt: skip
        settings.setdefault(name, {})[setting] = literal(value)
    return settings


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Read options of a model.

    Args:
        texts: Such as ``"classes=100"``.

    Returns:
        Option to value.

    Raises:
        ExperimentError: If one has another form.
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            raise ExperimentError(f"--option {text}: expected NAME=VALUE, such as classes=100")
        options[name] = literal(value)
    return options


def literal(text: str) -> Any:
    """Read a number, a tuple, True, False or None; anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
