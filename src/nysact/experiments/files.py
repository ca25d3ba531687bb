"""Files that are whole at any moment: JSON, text and anything else, replaced atomically."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nysact.experiments.errors import ExperimentError


def check_writable(folder: Path, option: str, *, make: bool = True) -> None:
    """Make sure before any work that files can be written to a folder, and make it if asked."""
    there = folder.absolute()
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            there = next(each for each in (there, *there.parents) if each.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ExperimentError(
            f"{option} {folder}: cannot be written to ({error.strerror}); "
            "expected a folder that exists or can be made"
        ) from error


def plain(value: Any) -> Any:
    """Replace what JSON lacks: numbers that are not finite become null, paths text."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside its place and move it there once it is on the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    if hasattr(os, "O_DIRECTORY"):  # So that the name survives a loss of power too.
        number = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(number)
        os.close(number)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExperimentError(f"{path}: not a JSON file ({error})") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON object a line; a last line that is not whole yet, or a missing file, is empty."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ExperimentError(f"{path}: not a JSON object a line ({error})") from error
