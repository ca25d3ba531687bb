"""Assignments to settings by their dotted names, as a user types them."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from nysact.experiments.config.data import KINDS
from nysact.experiments.errors import ExperimentError


def parsed(text: str) -> Any:
    """Read a value as TOML writes it, ``none``, or plain text."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def assign(values: dict[str, Any], name: str, value: Any) -> None:
    """Set the value of a dotted name in nested dictionaries.

    Args:
        values: What is changed.
        name: The dotted name.
        value: The value.

    Raises:
        ExperimentError: If there is no such name, or it is that of a section.
    """
    *path, last = name.split(".")
    section: Any = values
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        raise ExperimentError(no_setting(name, dotted_names(values)))
    if isinstance(section[last], dict) and name != "sweep":
        inside = ", ".join(dotted_names(section[last], f"{name}."))
        raise ExperimentError(f"{name} is a section: expected one of its settings: {inside}")
    if name in ("model.name", "optimizer.name") and value != section[last]:
        section["options"] = {}
    section[last] = value
    if name == "data.name":
        keep_common(section)
    if value is not None and name in ("epochs", "steps"):
        values["steps" if name == "epochs" else "epochs"] = None


def keep_common(data: dict[str, Any]) -> None:
    """Where other data is named, leave out what only the former kind has."""
    kind = KINDS.get(str(data["name"]))
    for name in set(data) - set(kind.model_fields if kind else data):
        del data[name]


def no_setting(name: str, names: Iterable[str]) -> str:
    """Write that a dotted name is unknown, which is the nearest, and which there are beside it."""
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


def dotted_names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted names of nested dictionaries."""
    names = []
    for name, value in values.items():
        if isinstance(value, dict) and name != "sweep":
            names += dotted_names(value, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names
