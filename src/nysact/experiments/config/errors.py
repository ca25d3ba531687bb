"""Errors of pydantic as sentences with dotted names and the nearest right name."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nysact.experiments.config.data import KINDS
from nysact.experiments.errors import unknown


def describe_error(error: ValidationError, section: type[BaseModel]) -> str:
    """Write a sentence for each thing that is wrong with the values of a section."""
    return "; ".join(sentence(detail, section) for detail in error.errors(include_url=False))


def sentence(detail: Any, section: type[BaseModel]) -> str:
    """Describe an entry of pydantic's ``ValidationError.errors``."""
    name = ".".join(str(part) for part in detail["loc"] if part not in KINDS)
    if detail["type"] == "extra_forbidden":
        return f"there is no setting {unknown(name, names_beside(detail['loc'], section))}"
    if detail["type"] == "union_tag_invalid":
        return f"{name}.name is {unknown(detail['ctx']['tag'], KINDS)}"
    if detail["type"] in ("missing", "union_tag_not_found"):
        return f"{name}: it is missing"
    cause = detail.get("ctx", {}).get("error")
    message = str(cause) if cause else detail["msg"].replace("Input should be", "expected")
    if isinstance(detail["input"], dict):
        return f"{name}: {message}" if name else message
    return f"{name}={detail['input']!r}: {message}"


def names_beside(location: Sequence[Any], section: Any) -> list[str]:
    """List the dotted names beside a wrong one, whose location has the kind of data as a part."""
    for part in location[:-1]:
        if part in KINDS:
            section = KINDS[part]
        elif part in getattr(section, "model_fields", ()):
            section = section.model_fields[part].annotation
    prefix = "".join(f"{part}." for part in location[:-1] if part not in KINDS)
    return [f"{prefix}{name}" for name in getattr(section, "model_fields", ())]
