"""Fashion-MNIST: 70,000 images of clothes, 28x28 pixels in grey, of 10 classes."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nysact.experiments.data.images import Data, ImageSet, standardised
from nysact.experiments.errors import ExperimentError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
# SHA-256 of the decompressed content; as gzip the files differ from one source to another.
CHECKSUMS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(CHECKSUMS)
# IDX headers: four bytes, and four for each dimension.
IMAGES_HEADER, LABELS_HEADER = 16, 8


def load_fashion_mnist(folder: Path | None = None) -> Data:
    """Load Fashion-MNIST, padded to 32x32, from a folder or the first place that has it."""
    if folder is None:
        files = files_in(DEBIAN_FOLDER) or files_in(cache_folder()) or downloaded(cache_folder())
    else:
        files = files_in(folder) or missing(folder)
    return standardised(image_set(files[:2]), image_set(files[2:]))


def files_in(folder: Path) -> list[Path] | None:
    """Find the files, in the order of ``FILES``; ``None`` unless all four are there."""
    for place in (folder, folder / "FashionMNIST" / "raw"):
        pairs = [(place / name, place / f"{name}.gz") for name in FILES]
        found = [next((path for path in pair if path.is_file()), None) for pair in pairs]
        if None not in found:
            return [path for path in found if path is not None]
    return None


def missing(folder: Path) -> list[Path]:
    """Say which files a folder should have."""
    raise ExperimentError(
        f"{folder}: expected the files {', '.join(FILES)} (plain or .gz) in it or in "
        "FashionMNIST/raw under it; leave the folder out to let them be found"
    )


def cache_folder() -> Path:
    """Name the folder for downloads, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nysact"


def downloaded(folder: Path) -> list[Path]:
    """Let torchvision download the files into a folder."""
    try:
        # Imported here: only a download needs it.
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(folder), download=True)
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ExperimentError(
            f"Fashion-MNIST is not in {DEBIAN_FOLDER}, and its download failed ({reason}). "
            "Do one of these: apt-get install dataset-fashion-mnist (Debian, Ubuntu); "
            "set data.folder to a folder with its four IDX files; "
            "or try again with torchvision installed and a working network."
        ) from error
    return files_in(folder) or missing(folder)


def image_set(files: Sequence[Path]) -> ImageSet:
    """Read a file of images and one of labels; each image gets two black pixels on each side."""
    images, labels = (read(path) for path in files)
    pixels = images[IMAGES_HEADER:].view(-1, 1, 28, 28).float() / 255
    # The ResNets' three stages need a side that halves twice.
    return ImageSet(F.pad(pixels, (2, 2, 2, 2)), labels[LABELS_HEADER:].long())


def read(path: Path) -> Tensor:
    """Read a file's bytes, decompressed, whose checksum vouches for format and size."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, OSError, zlib.error) as error:
        raise ExperimentError(f"{path}: cannot be read ({error}); download it again") from error
    expected = CHECKSUMS[path.name.removesuffix(".gz")]
    found = hashlib.sha256(content).hexdigest()
    if expected not in (None, found):
        raise ExperimentError(
            f"{path}: the SHA-256 checksum of its content is {found}, expected {expected}; it is "
            "damaged or another file: download it again"
        )
    # The bytes are copied because a tensor must own memory that can be written.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
