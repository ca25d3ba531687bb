"""Assignments NAME=VALUE as users type them (``--set``, ``--vary``, ``--slurm``, ``--option``)."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from nysact.experiments.config.data import KINDS
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


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted names; the keys of ``sweep`` are such names already."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and name != "sweep"
        flat |= dotted(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def assign(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Set the value of a dotted name, and what follows from it for other settings."""
    check_name(values, name)
    conf = OmegaConf.create(values)
    if name in ("model.name", "optimizer.name") and value != OmegaConf.select(conf, name):
        # Another model or optimizer starts from its own defaults.
        OmegaConf.update(conf, name.replace(".name", ".options"), {}, merge=False)
    if value is not None and name in ("epochs", "steps"):
        OmegaConf.update(conf, "steps" if name == "epochs" else "epochs", None)
    OmegaConf.update(conf, name, value, merge=False)
    changed: dict[str, Any] = OmegaConf.to_container(conf)  # type: ignore[assignment]
    if name == "data.name" and value in KINDS:
        # Other data keeps only the settings that both kinds have.
        fields = KINDS[value].model_fields
        changed["data"] = {key: held for key, held in changed["data"].items() if key in fields}
    return changed


def check_name(values: Mapping[str, Any], name: str) -> None:
    """Make sure that a dotted name is that of a setting, or name the nearest."""
    names = dotted(values)
    inside = [other for other in names if other.startswith(f"{name}.")]
    if inside:
        raise ExperimentError(
            f"{name} is a section: expected one of its settings: {', '.join(inside)}"
        )
    if name not in names:
        raise ExperimentError(no_setting(name, names))


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
