"""What a sweep varies, as typed on the command line, and searches that ignore results."""

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nysact.experiments.config import Config
from nysact.experiments.config.assignments import parse_assignment, parse_value, value_text
from nysact.experiments.errors import ExperimentError, unknown

Spaces = Mapping[str, BaseDistribution]
Trial = dict[str, Any]
SEARCHES = ("grid", "random", "adaptive")
EXAMPLE = "lr=0.03,0.1,0.3 or lr=log:0.01:1 or lr=uniform:0:0.9 or rank=int:4:32 or logint:1:64"
RANGES: Mapping[str, tuple[Any, bool]] = {  # with whether each is logarithmic
    "uniform": (FloatDistribution, False),
    "log": (FloatDistribution, True),
    "int": (IntDistribution, False),
    "logint": (IntDistribution, True),
}


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Keep Optuna from announcing studies, and from warning of heartbeats outside its own loop."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(experimental|Heartbeat)")
        yield


def parse_space(text: str) -> tuple[str, BaseDistribution]:
    """Read what a setting is varied over: its dotted name, and values or a range."""
    name, values = parse_assignment(text, "--vary", EXAMPLE)
    kind, *ends = values.split(":")
    if not ends:
        return name, CategoricalDistribution([parse_value(v.strip()) for v in values.split(",")])
    if kind not in RANGES or len(ends) != 2:
        ranges = ", ".join(f"{kind}:LOW:HIGH" for kind in RANGES)
        raise ExperimentError(f"--vary {text}: expected a range {ranges}, or values like 1,2,3")
    distribution, log = RANGES[kind]
    number = int if distribution is IntDistribution else float
    try:
        low, high = map(number, ends)
        if -math.inf < low < high < math.inf:
            return name, distribution(low, high, log=log)
    except ValueError:
        pass
    numbers = ("whole " if number is int else "") + "numbers" + (" above 0" if log else "")
    raise ExperimentError(f"--vary {text}: expected two {numbers} after {kind}:, the lower first")


def search_kind(asked: str | None, spaces: Spaces) -> str:
    """Choose grid, random or adaptive: what was asked for, else what fits."""
    values = all(isinstance(space, CategoricalDistribution) for space in spaces.values())
    kind = asked or ("grid" if values else "random")
    if kind not in SEARCHES:
        raise ExperimentError(f"--search {unknown(kind, SEARCHES)}")
    return kind


def grid(spaces: Spaces) -> list[Trial]:
    """List all combinations of values, the last setting varying fastest."""
    for name, space in spaces.items():
        if not isinstance(space, CategoricalDistribution):
            raise ExperimentError(
                f"--vary {name}: a grid needs values with commas between; give those, or choose "
                "--search random or --search adaptive"
            )
    choices = (getattr(space, "choices", ()) for space in spaces.values())
    return [dict(zip(spaces, values, strict=True)) for values in itertools.product(*choices)]


def draws(spaces: Spaces, count: int, seed: int) -> list[Trial]:
    """Draw trials at random; more trials keep the first ones."""
    with optuna_quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        return [study.ask(dict(spaces)).params for _ in range(count)]


def trials_of(kind: str, spaces: Spaces, count: int, seed: int) -> list[Trial]:
    """List the trials; one random trial shows what the runs of an adaptive search are like."""
    if kind == "grid":
        return grid(spaces)
    return draws(spaces, 1 if kind == "adaptive" else count, seed)


def varied(config: Config, sweep: str, values: Mapping[str, Any]) -> Config:
    """Set what a sweep varies; the run is stored under the sweep's name."""
    texts = [f"{name}={value_text(value)}" for name, value in values.items()]
    return config.override(texts).model_copy(update={"recipe": sweep, "sweep": dict(values)})
