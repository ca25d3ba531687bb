"""The folder of a run: its settings, where it ran, its metrics, its result and its checkpoint."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
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
# The file in a run's folder in which a crashed process leaves its last words.
FAILURE = "failure.txt"
# What a process that was killed while writing leaves: see write_atomically.
REMAINS = re.compile(r"\..+\.\d+")


class RunFolder:
    """Writes a run's files; ``metrics.jsonl`` and ``result.json`` do not depend on time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return (self.path / "result.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running the same run; the lock goes with the process."""
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
            for path in self.path.glob(".*"):
                if REMAINS.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def check_data(self, digest: str | None) -> None:
        """Make sure that a stored run used the data that has this digest."""
        path = self.path / "data.json"
        known = read_json(path)["digest"] if path.is_file() else None
        if None not in (known, digest) and known != digest:
            raise ExperimentError(
                f"{self.path}: this run was made with other data (digest {known}, now {digest}; "
                "the text or the images in data.folder, or Python's standard library, changed): "
                "restore the former data, choose another folder with --runs, or delete this one"
            )

    def start(
        self, config: Config, environment: Mapping[str, Any], digest: str | None = None
    ) -> None:
        """Write the settings, the digest of the data, and each environment that it runs in."""
        write_json(self.path / "config.json", config.model_dump())
        if digest is not None:
            write_json(self.path / "data.json", {"digest": digest})
        path = self.path / "environment.json"
        known = read_json(path) if path.is_file() else dict(environment)
        resumed = known.pop("resumed", [])
        resumed += [environment] * (environment not in (known, *resumed))
        write_json(path, {**known, "resumed": resumed} if resumed else known)

    def append(self, metrics: Line, timing: Line) -> None:
        """Add the lines of an evaluation, each with its ``"step"``."""
        for name, line in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain(line), allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Read the evaluations so far."""
        return read_lines(self.path / "metrics.jsonl")

    def cut_back(self, step: int) -> None:
        """Remove the lines of evaluations after the step at which the run resumes."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.path / name
            kept = [line for line in read_lines(path) if line["step"] <= step]
            if path.is_file():
                write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, so that at any moment the file is a whole one."""
        write_atomically(self.path / "checkpoint.pt", lambda file: torch.save(state, file))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the checkpoint onto the CPU; ``None`` if there is none."""
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ExperimentError(
                f"{path}: not a whole checkpoint ({str(error).splitlines()[0]}); delete it to "
                "restart this run"
            ) from error
        return state

    def finish(
        self,
        result: Mapping[str, Any],
        timing: Mapping[str, Any],
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the end of the run; the result comes last, as it makes the run a finished one."""
        if arrays:
            save = partial(numpy.savez_compressed, allow_pickle=False, **arrays)
            write_atomically(self.path / "arrays.npz", save)
        write_json(self.path / "timing.json", timing)
        write_json(self.path / "result.json", result)


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder has it."""

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]  # the evaluations so far
    timing: list[dict[str, Any]]  # cumulative seconds of training at the same steps
    result: dict[str, Any] | None  # None while the run is not finished
    timings: dict[str, Any] | None  # seconds and bytes, likewise
    environment: dict[str, Any] = field(default_factory=dict)


def folder_of(config: Config, root: Path) -> RunFolder:
    """The folder of a run."""
    return RunFolder(root / config.recipe / config.run_id())


def load_runs(root: Path) -> list[StoredRun]:
    """Read all runs below a folder, finished or not, ordered by their paths."""
    if not root.is_dir():
        raise ExperimentError(f"{root}: no such folder; name the one given to --runs in training")
    return [load_run(path.parent) for path in sorted(root.rglob("config.json"))]


def load_run(path: Path) -> StoredRun:
    """Read a run."""
    finished = (path / "result.json").is_file()
    environment = path / "environment.json"
    return StoredRun(
        path=path,
        config=read_json(path / "config.json"),
        metrics=read_lines(path / "metrics.jsonl"),
        timing=read_lines(path / "timing.jsonl"),
        result=read_json(path / "result.json") if finished else None,
        timings=read_json(path / "timing.json") if finished else None,
        environment=read_json(environment) if environment.is_file() else {},
    )


def failure_of(run: StoredRun) -> str | None:
    """Say why a run diverged or crashed; ``None`` if it did not, or finished later."""
    if run.result is not None:
        failure: str | None = run.result.get("failure")
        return failure
    path = run.path / FAILURE
    return path.read_text("utf-8") if path.is_file() else None


def succeeded(run: StoredRun) -> bool:
    """Whether a run finished and did not diverge."""
    return run.result is not None and failure_of(run) is None
