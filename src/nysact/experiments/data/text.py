"""Text as bytes: the training files joined, and whole files that are held out."""

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from nysact.experiments.config.data import TextData
from nysact.experiments.data.loaders import Batch, Batches, Share, ShuffledLoader, device_batches
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import stream

# Folders beside Python's standard library, or in it with odd text on purpose.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def load_text(data: TextData) -> tuple[Tensor, ...]:
    """Read the bytes for training, those held out and, where asked for, those for validation."""
    validation = data.validation_size > 0
    return read_text(data.folder, tuple(data.suffixes), data.held_out, data.context, validation)


@lru_cache(maxsize=2)
def read_text(
    place: str | None, suffixes: tuple[str, ...], held_out: int, context: int, validation: bool
) -> tuple[Tensor, ...]:
    """Read a file, a folder or (``None``) the standard library, and remember it."""
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
    """Hold out the end of a single file, and the end of the rest for validation."""
    border = len(content) - len(content) // held_out
    first = border - border // held_out if validation else border
    return [content[:first], content[border:], *([content[first:border]] if validation else [])]


def text_files(root: Path, suffixes: Sequence[str], *, library: bool) -> list[Path]:
    """Find at least two text files in a folder, in the order of their names."""
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
    """Hold out one file in so many, by a salted hash of its name: new files move no others."""

    def rank(path: Path) -> int:
        name = salt + path.relative_to(root).as_posix()
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")

    chosen = [path for path in paths if rank(path) % held_out == 0] or [min(paths, key=rank)]
    rest = [path for path in paths if path not in chosen]
    return (rest, chosen) if rest else (chosen[:1], chosen[1:])


def read_utf8(path: Path) -> bytes:
    """Read a file's bytes, which must be UTF-8."""
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


class WindowLoader(ShuffledLoader):
    """Windows of text in random order; the model predicts each byte of one from those before.

    An epoch goes once through the text, in consecutive windows that begin at a random offset.
    """

    def __init__(
        self, text: Tensor, context: int, batch_size: int, seed: int, share: Share
    ) -> None:
        # One less than fit: the random offset takes up to a window at the start.
        super().__init__((len(text) - 1) // context - 1, batch_size, seed, share)
        self.text, self.context = text, context

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Give bytes, and the byte that follows each of them, from batch ``start`` on."""
        generator = stream(self.seed, "order", number)
        offset = int(torch.randint(self.context, (), generator=generator))
        order = self.order(generator)
        # Consecutive windows of the context and a byte more, as one view.
        whole = self.text[offset:].unfold(0, self.context + 1, self.context)
        for part in self.slices(start):
            yield pairs(whole[order[part].to(whole.device)])


def window_batches(
    text: Tensor, context: int, number: int, batch_size: int, share: Share
) -> Batches:
    """Batch at most ``number`` windows of the held-out text, evenly spread over it."""
    whole = text.unfold(0, context + 1, context)
    chosen = torch.linspace(0, len(whole) - 1, min(number, len(whole))).round().long()
    return device_batches(*pairs(whole[chosen.to(whole.device)]), batch_size, share)


def pairs(windows: Tensor) -> Batch:
    """Split windows (n, context + 1) into bytes and those that follow, (n, context) each."""
    found = windows.long()
    return found[:, :-1], found[:, 1:]
