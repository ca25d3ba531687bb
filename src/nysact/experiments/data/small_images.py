"""Fashion-MNIST, the CIFARs and scikit-learn's digits: where they come from."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nysact.experiments.config.data import ImageData, Section
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
# Mean and standard deviation of the training pixels of each channel, as in the paper.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
# IDX headers: four bytes, and four for each dimension.
IMAGES_HEADER, LABELS_HEADER = 16, 8


def cache_folder() -> Path:
    """Name the folder for downloads, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nysact"


def would_be_downloaded(data: Section) -> bool:
    """Whether loading data would download it; data in a folder, or with a package, never is."""
    if not isinstance(data, ImageData) or data.folder is not None or data.name == "digits":
        return False
    if data.name == "fashion-mnist":
        return not any(files_in(folder) for folder in (DEBIAN_FOLDER, cache_folder()))
    dataset = cifar_class(data.name)
    folder = cache_folder() / dataset.base_folder
    files = dataset.train_list + dataset.test_list
    return not all((folder / file).is_file() for file, _ in files)


def download_failed(name: str, place: Path, remedy: str, error: Exception) -> ExperimentError:
    """Say that a download failed, and what to do."""
    reason = " ".join(str(error).split())
    return ExperimentError(
        f"{name} is not in {place}, and its download failed ({reason}). {remedy}"
    )


def load_fashion_mnist(folder: Path | None = None) -> Data:
    """Load Fashion-MNIST, padded to 32x32, from a folder or the first place that has it."""
    if folder is None:
        files = files_in(DEBIAN_FOLDER) or files_in(cache_folder()) or downloaded(cache_folder())
    else:
        files = files_in(folder) or missing(folder)
    return standardised(idx_set(files[:2]), idx_set(files[2:]))


def files_in(folder: Path) -> list[Path] | None:
    """Find the files, in the order of ``FILES``; ``None`` unless all four are there."""
    for place in (folder, folder / "FashionMNIST" / "raw"):
        pairs = [(place / name, place / f"{name}.gz") for name in FILES]
        found = [next(filter(Path.is_file, pair), None) for pair in pairs]
        if None not in found:
            return [path for path in found if path is not None]
    return None


def missing(folder: Path) -> list[Path]:
    """Say which files a folder should have."""
    raise ExperimentError(
        f"{folder}: expected the files {', '.join(FILES)} (plain or .gz) in it or in "
        "FashionMNIST/raw under it; leave the folder out to let them be found"
    )


def downloaded(folder: Path) -> list[Path]:
    """Let torchvision download the files into a folder."""
    try:
        # Imported here: only a download needs it.
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(folder), download=True)
    except (ImportError, OSError, RuntimeError) as error:
        remedy = (
            "Do one of these: apt-get install dataset-fashion-mnist (Debian, Ubuntu); set "
            "data.folder to a folder with its four IDX files; or try again with torchvision "
            "installed and a working network."
        )
        raise download_failed("Fashion-MNIST", DEBIAN_FOLDER, remedy, error) from error
    return files_in(folder) or missing(folder)


def idx_set(files: Sequence[Path]) -> ImageSet:
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


def cifar_class(name: str) -> Any:
    """Find torchvision's class, imported here because few runs need it."""
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def load_cifar(name: str, folder: Path | None = None) -> Data:
    """Load a CIFAR by torchvision, from a folder or, downloaded where missing, from the cache."""
    dataset = cifar_class(name)
    root = cache_folder() if folder is None else root_in(dataset, folder)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in STATISTICS[name])
    train, test = (
        cifar_set(opened(dataset, root, part, download=folder is None), mean, std)
        for part in (True, False)
    )
    black, white = (tuple(((pixel - mean) / std).flatten().tolist()) for pixel in (0.0, 1.0))
    return Data(train, test, black, white)


def root_in(dataset: Any, folder: Path) -> Path:
    """Find torchvision's root: the folder, or the one above if it holds the files itself."""
    root = folder.parent if folder.name == dataset.base_folder else folder
    if not (root / dataset.base_folder).is_dir():
        raise ExperimentError(
            f"data.folder={folder}: expected a folder {dataset.base_folder} in it (unpack "
            f"{dataset.filename} there); leave data.folder out to have it downloaded"
        )
    return root


def opened(dataset: Any, root: Path, train: bool, *, download: bool) -> Any:
    """Open one of the two sets; torchvision verifies the checksums of all files."""
    try:
        return dataset(str(root), train=train, download=download)
    except (OSError, RuntimeError) as error:
        file = dataset.filename
        if download:
            remedy = f"Unpack {file} somewhere and set data.folder to it, or restore the network."
            raise download_failed(dataset.__name__, root, remedy, error) from error
        raise ExperimentError(
            f"{root / dataset.base_folder}: a file is missing or damaged, by torchvision's list of "
            f"checksums; unpack {file} there again"
        ) from error


def cifar_set(content: Any, mean: Tensor, std: Tensor) -> ImageSet:
    """Turn torchvision's pixels into standardised floats."""
    pixels = torch.from_numpy(content.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet((pixels.float() / 255 - mean) / std, torch.tensor(content.targets))


def load_digits() -> Data:
    """Load the digits in a fixed, stratified split: 1,000 for training and 797 for test."""
    # Imported here: it takes more than a second, and only this data needs it.
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    whole = ImageSet(
        torch.from_numpy(digits.images).float().unsqueeze(1),
        torch.from_numpy(digits.target).long(),
    )
    parts = train_test_split(
        range(len(whole)), test_size=797, stratify=digits.target, random_state=0
    )
    train, test = (whole.subset(torch.tensor(part)) for part in parts)
    return standardised(train, test, white=16.0)
