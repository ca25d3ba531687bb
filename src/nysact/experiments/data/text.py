"""Text as bytes: the training files in one row, and files that are held out whole."""

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nysact.experiments.config.data import TextData
from nysact.experiments.data.loaders import Batch, Share, whole_batches
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import stream

# Parts of Python's standard library that are no part of it, or that hold odd text on purpose.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def load_text(data: TextData) -> tuple[Tensor, ...]:
    """Read the files.

    Args:
        data: Which files.

    Returns:
        The bytes of the training files, of those held out, and, if there is to be one, of the
        validation set, uint8.
    """
    validation = data.validation_size > 0
    return read_text(data.folder, tuple(data.suffixes), data.held_out, data.context, validation)


@lru_cache(maxsize=2)
def read_text(
    place: str | None, suffixes: tuple[str, ...], held_out: int, context: int, validation: bool
) -> tuple[Tensor, ...]:
    """Read files, and remember them for the next run.

    Args:
        place: A file, a folder, or ``None`` for the source of Python's standard library.
        suffixes: Ends of the names of the files that are read in a folder.
        held_out: One file in so many is held out; of a single file, the last such part.
        context: Bytes that a window must have at least.
        validation: Whether of the rest as much again is held out for validation.

    Returns:
        The bytes of the training files, of those held out, and of the validation set if any.

    Raises:
        ExperimentError: If there is no text, or too little of it.
    """
    root = Path(place or sysconfig.get_paths()["stdlib"])
    if root.is_file():
        parts = cut(read_utf8(root), held_out, validation)
    else:
        train, *others = split(root, text_files(root, suffixes, library=place is None), held_out)
        if validation:
            train, chosen = split(root, train, held_out, "validation/")
            others.append(chosen)
        parts = [b"\n".join(map(read_utf8, files)) for files in (train, *others)]
    for name, part in zip(("training", "held-out", "validation"), parts, strict=False):
        if len(part) < 2 * context + 1:
            raise ExperimentError(
                f"{root}: {len(part)} bytes of {name} text, expected at least {2 * context + 1} "
                f"for a context of {context}: give more text or lower data.context"
            )
    return tuple(torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)


def cut(content: bytes, held_out: int, validation: bool) -> list[bytes]:
    """Hold out the end of a single file, and the end of the rest for validation.

    Args:
        content: The file.
        held_out: One byte in so many is held out.
        validation: Whether there is to be a validation set.

    Returns:
        What is trained on, what is held out, and the validation set if any.
    """
    border = len(content) - len(content) // held_out
    first = border - border // held_out if validation else border
    return [content[:first], content[border:], *([content[first:border]] if validation else [])]


def text_files(root: Path, suffixes: Sequence[str], *, library: bool) -> list[Path]:
    """Find the text files in a folder, in the order of their names.

    Args:
        root: The folder.
        suffixes: Ends of their names.
        library: Whether it is Python's standard library, of which some parts are left out.

    Returns:
        At least two files.

    Raises:
        ExperimentError: If there is no such folder, or there are fewer.
    """
    if not root.is_dir():
        raise ExperimentError(f"data.folder={root}: no such file or folder")
    left_out = LEFT_OUT if library else set()
    found = sorted(
        path
        for path in root.rglob("*")
        if path.name.endswith(tuple(suffixes))
        and path.is_file()
        and not left_out & set(path.relative_to(root).parts)
    )
    if len(found) < 2:
        raise ExperimentError(
            f"{root}: {len(found)} files whose names end in {', '.join(suffixes)}; expected at "
            "least two, of which one is held out; name one file, or set data.suffixes"
        )
    return found


def split(
    root: Path, paths: Sequence[Path], held_out: int, salt: str = ""
) -> tuple[list[Path], list[Path]]:
    """Hold out one file in so many, by a hash of its name: another file changes nothing.

    Args:
        root: The folder to which names are relative.
        paths: The files, at least two.
        held_out: One in so many is held out, and one at least.
        salt: Another one holds out other files.

    Returns:
        The files for training, and those held out.
    """

    def rank(path: Path) -> int:
        name = salt + path.relative_to(root).as_posix()
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")

    chosen = [path for path in paths if rank(path) % held_out == 0] or [min(paths, key=rank)]
    rest = [path for path in paths if path not in chosen]
    return (rest, chosen) if rest else (chosen[:1], chosen[1:])


def read_utf8(path: Path) -> bytes:
    """Read a file.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        ExperimentError: If it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        content.decode()
    except UnicodeDecodeError as error:
        raise ExperimentError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); convert it, or leave "
            "it out by data.suffixes"
        ) from error
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error.strerror})") from error
    return content


class WindowLoader:
    """Windows of text in random order; the model predicts each byte of one from those before.

    An epoch goes once through the text, in windows that follow each other from a random place on.

    Args:
        text: The training text, on the device.
        context: Bytes of a window.
        batch_size: Windows a batch, over all processes.
        seed: Seed of places and order.
        share: Which process this is.
    """

    def __init__(
        self, text: Tensor, context: int, batch_size: int, seed: int, share: Share
    ) -> None:
        self.text = text
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.share = share
        # One less than fit: the random place takes up to a window at the start.
        self.windows = (len(text) - 1) // context - 1
        self.batches = whole_batches(self.windows, batch_size, share)

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from one of its batches on.

        Args:
            number: The epoch, from 0.
            start: The first batch, from 0.

        Yields:
            This process's share of each batch: bytes, and the bytes that follow each of them.
        """
        generator = stream(self.seed, "order", number)
        place = int(torch.randint(self.context, (), generator=generator))
        order = torch.randperm(self.windows, generator=generator)
        for batch in range(start, self.batches):
            first = batch * self.batch_size
            part = slice(first + self.share.index, first + self.batch_size, self.share.count)
            yield windows(self.text, place + self.context * order[part], self.context)


class WindowBatches:
    """Windows of the held-out text, evenly spread over it, the same each time.

    Args:
        text: The held-out text, on the device.
        context: Bytes of a window.
        number: Windows in all, fewer where the text has not as many.
        batch_size: Windows a batch.
        share: Which process this is.
    """

    def __init__(
        self, text: Tensor, context: int, number: int, batch_size: int, share: Share
    ) -> None:
        there = (len(text) - 1) // context
        chosen = torch.linspace(0, there - 1, min(number, there)).round().long()
        self.text = text
        self.context = context
        self.starts = share.of(context * chosen).split(batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for starts in self.starts:
            yield windows(self.text, starts, self.context)


def windows(text: Tensor, starts: Tensor, context: int) -> Batch:
    """Cut windows out of a text.

    Args:
        text: The bytes.
        starts: Place of the first byte of each, ``(n)``.
        context: Bytes of a window.

    Returns:
        Bytes, and the bytes that follow each of them, both int64 ``(n, context)``.
    """
    places = starts[:, None] + torch.arange(context + 1)
    found = text[places.to(text.device)].long()
    return found[:, :-1], found[:, 1:]
