"""Assignments NAME=VALUE as users type them: ``--set``, ``--vary``, ``--slurm``, ``--option``."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from nysact.experiments.errors import ExperimentError


def parse_assignment(text: str, option: str, example: str) -> tuple[str, str]:
    """Split NAME=VALUE into its two texts; ``option`` and ``example`` are for the error."""
    name, _, value = (part.strip() for part in text.partition("="))
    if not (name and value):
        raise ExperimentError(f"{option} {text}: expected NAME=VALUE, such as {example}")
    return name, value


def parse_assignments(texts: Iterable[str], option: str, example: str) -> dict[str, Any]:
    """Read several assignments into a dictionary of values; the last one of a name counts."""
    pairs = [parse_assignment(text, option, example) for text in texts]
    return {name: parse_value(value) for name, value in pairs}


def parse_value(text: str) -> Any:
    """Read a value as TOML writes it, ``none``, or plain text without quotes."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def value_text(value: Any) -> str:
    """Write a value so that :func:`parse_value` reads it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def dotted_names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted names of nested dictionaries; ``sweep`` has dotted names for keys itself."""
    return list(dotted(values, prefix))


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted names; an empty dictionary has none."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and name != "sweep"
        flat |= dotted(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def no_setting(name: str, names: Iterable[str]) -> str:
    """Say that a dotted name is unknown, which is the nearest, and which others stand beside it."""
    names = list(names)
    last = name.rpartition(".")[2]
    # Whoever forgets the section means the setting of that name.
    same = [other for other in names if other.rpartition(".")[2] == last]
    (nearest,) = difflib.get_close_matches(name, same or names, n=1, cutoff=0.0)
    section = nearest.rpartition(".")[0]
    beside = [other for other in names if other.rpartition(".")[0] == section]
    return (
        f"there is no setting {name!r}: the nearest is {nearest!r}; expected one of "
        f"{', '.join(beside)}"
    )
