"""The folder of a run: what it was to be, where it ran, what came of it, and where it stands."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy
import torch
from filelock import FileLock, Timeout

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError, RunningElsewhereError
from nysact.experiments.files import (
    plain,
    read_json,
    read_lines,
    write_atomically,
    write_json,
    write_text,
)

Line = Mapping[str, Any]
# What a process that was killed while writing leaves: see files.write_atomically.
REMAINS = re.compile(r"\..+\.\d+")


class RunFolder:
    """Writes a run's files.

    ``config.json``, ``environment.json`` and ``data.json`` (a digest of the data, where there is
    one) are written at the start; lines are added to
    ``metrics.jsonl`` and ``timing.jsonl`` at each evaluation; ``checkpoint.pt`` is replaced now and
    then; ``timing.json``, ``arrays.npz`` where there are arrays, and last ``result.json`` are
    written at the end. ``metrics.jsonl`` and ``result.json`` hold nothing that depends on time.

    Args:
        path: The folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return (self.path / "result.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running the same run; the lock goes with the process.

        Yields:
            Nothing.

        Raises:
            ExperimentError: If the folder cannot be made.
            RunningElsewhereError: If another process holds the lock.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise RunningElsewhereError(
                f"{self.path}: another process is running this run; let it finish, or stop it"
            ) from error
        except OSError as error:
            raise ExperimentError(
                f"{self.path}: cannot be written to ({error.strerror}); choose another folder "
                "with --runs"
            ) from error
        try:
            remove_remains(self.path)
            yield
        finally:
            lock.release()

    def check_data(self, digest: str | None) -> None:
        """Make sure that a run that was begun or finished is one of this data.

        Args:
            digest: That of the data, ``None`` if there is none.

        Raises:
            ExperimentError: If the run has noted another.
        """
        path = self.path / "data.json"
        known = read_json(path)["digest"] if path.is_file() else None
        if None not in (known, digest) and known != digest:
            raise ExperimentError(
                f"{self.path}: this run was made with other data (digest {known}, now {digest}; "
                "the text or the images in data.folder, or Python's standard library, changed): "
                "give it the former data, choose another folder with --runs, or delete this one"
            )

    def start(
        self, config: Config, environment: Mapping[str, Any], digest: str | None = None
    ) -> None:
        """Write down what is to be run and where, once; another place is noted beside it.

        Args:
            config: The configuration.
            environment: Versions, device and the like.
            digest: That of the data, if it has one.
        """
        write_json(self.path / "config.json", config.model_dump())
        if digest is not None:
            write_json(self.path / "data.json", {"digest": digest})
        path = self.path / "environment.json"
        known = read_json(path) if path.is_file() else None
        if known is None:
            write_json(path, environment)
        elif environment not in ({k: known[k] for k in known if k != "resumed"}, *resumed(known)):
            write_json(path, {**known, "resumed": [*resumed(known), environment]})

    def append(self, metrics: Line, timing: Line) -> None:
        """Add the lines of an evaluation.

        Args:
            metrics: With the key ``"step"``; what is not finite is written as null.
            timing: Likewise.
        """
        for name, line in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain(line), allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def cut_back(self, step: int) -> None:
        """Take away the lines of evaluations after a step.

        Args:
            step: The step at which the run goes on.
        """
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.path / name
            if path.is_file():
                kept = [line for line in read_lines(path) if line["step"] <= step]
                text = "".join(json.dumps(line) + "\n" for line in kept)
                write_text(path, text)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, so that at any moment the file is a whole one.

        Args:
            state: Tensors, numbers and text, in dictionaries, lists and tuples.
        """
        write_atomically(self.path / "checkpoint.pt", lambda file: torch.save(state, file))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the checkpoint.

        Returns:
            The state that was saved, on the CPU; ``None`` if there is none.

        Raises:
            ExperimentError: If the file is not a whole checkpoint.
        """
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ExperimentError(
                f"{path}: not a whole checkpoint ({str(error).splitlines()[0]}); delete it to "
                "start this run anew"
            ) from error
        return state

    def finish(
        self,
        result: Mapping[str, Any],
        timing: Mapping[str, Any],
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what came of the run; the result comes last, for it makes the run a finished one.

        Args:
            result: Steps, epochs, final and best values of the metrics.
            timing: Seconds and bytes.
            arrays: Arrays by name, if any.
        """
        if arrays:
            write_atomically(
                self.path / "arrays.npz",
                lambda file: numpy.savez_compressed(file, allow_pickle=False, **arrays),
            )
        write_json(self.path / "timing.json", timing)
        write_json(self.path / "result.json", result)


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder has it.

    Args:
        path: The folder.
        config: The configuration.
        metrics: The evaluations so far.
        timing: Cumulative seconds of training at the same steps.
        result: What came of it, ``None`` while it isn't finished.
        timings: Seconds and bytes, likewise.
        environment: Versions, device and the like.
    """

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    result: dict[str, Any] | None
    timings: dict[str, Any] | None
    environment: dict[str, Any] = field(default_factory=dict)


def load_runs(root: Path) -> list[StoredRun]:
    """Read all runs below a folder.

    Args:
        root: The folder of a run, of a recipe's runs, or of those of several recipes.

    Returns:
        The runs, finished or not, ordered by their paths.

    Raises:
        ExperimentError: If there is no such folder.
    """
    if not root.is_dir():
        raise ExperimentError(f"{root}: no such folder; name the one given to --runs in training")
    return [load_run(path.parent) for path in sorted(root.rglob("config.json"))]


def load_run(path: Path) -> StoredRun:
    """Read a run.

    Args:
        path: Its folder.

    Returns:
        The run.
    """
    lines = {
        name: read_lines(path / f"{name}.jsonl") if (path / f"{name}.jsonl").is_file() else []
        for name in ("metrics", "timing")
    }
    finished = (path / "result.json").is_file()
    environment = path / "environment.json"
    return StoredRun(
        path=path,
        config=read_json(path / "config.json"),
        metrics=lines["metrics"],
        timing=lines["timing"],
        result=read_json(path / "result.json") if finished else None,
        timings=read_json(path / "timing.json") if finished else None,
        environment=read_json(environment) if environment.is_file() else {},
    )


def resumed(environment: Mapping[str, Any]) -> list[Any]:
    """List the further places where a run went on."""
    places: list[Any] = environment.get("resumed", [])
    return places


def remove_remains(folder: Path) -> None:
    """Remove what processes that were killed while writing have left; none may be writing now."""
    for path in folder.glob(".*"):
        if REMAINS.fullmatch(path.name):
            path.unlink(missing_ok=True)
