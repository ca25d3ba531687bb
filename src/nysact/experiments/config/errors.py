"""What is wrong with a configuration, in words."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nysact.experiments.config.data import KINDS
from nysact.experiments.errors import unknown


def in_words(error: ValidationError, section: type[BaseModel]) -> str:
    """Write what is wrong with values.

    Args:
        error: What is wrong.
        section: What they should have been.

    Returns:
        A sentence for each with the dotted name, and the nearest right one or the value found.
    """
    return "; ".join(sentence(detail, section) for detail in error.errors(include_url=False))


def sentence(detail: Any, section: type[BaseModel]) -> str:
    """Write what is wrong with a value.

    Args:
        detail: An entry of pydantic's ``ValidationError.errors``.
        section: What the values should have been.

    Returns:
        The sentence.
    """
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
    """List the dotted names that are right in a section.

    Args:
        location: A wrong one in pydantic's form, where the kind of data is a part of its own.
        section: The model that holds the section.

    Returns:
        The names.
    """
    for part in location[:-1]:
        if part in KINDS:
            section = KINDS[part]
        elif part in getattr(section, "model_fields", ()):
            section = section.model_fields[part].annotation
    prefix = "".join(f"{part}." for part in location[:-1] if part not in KINDS)
    return [f"{prefix}{name}" for name in getattr(section, "model_fields", ())]
