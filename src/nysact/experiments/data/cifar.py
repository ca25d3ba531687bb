"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32 pixels, of 10 or 100 classes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.data.fashion_mnist import cache_folder
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.errors import ExperimentError

# Mean and standard deviation of the training pixels of each channel, as the paper has them.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_cifar(name: str, folder: Path | None = None) -> Data:
    """Load CIFAR-10 or CIFAR-100 by torchvision, which knows the checksums.

    Args:
        name: ``"cifar10"`` or ``"cifar100"``.
        folder: Where the Python version lies, unpacked, with its folder's name or without;
            ``None`` for the user's cache, into which it is downloaded where it is missing.

    Returns:
        The data, standardised by the statistics of the training set.
    """
    from torchvision import datasets

    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    root = downloaded(dataset, cache_folder()) if folder is None else root_in(dataset, folder)
    check_files(dataset, root)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in STATISTICS[name])
    train, test = (read(dataset, root, train, mean, std) for train in (True, False))
    black, white = (tuple(((pixel - mean) / std).flatten().tolist()) for pixel in (0.0, 1.0))
    return Data(train, test, flip=True, black=black, white=white)


def files_of(dataset: Any) -> list[tuple[str, str]]:
    """List the names and checksums of a data set's files."""
    meta = (dataset.meta["filename"], dataset.meta["md5"])
    return [*map(tuple, dataset.train_list), *map(tuple, dataset.test_list), meta]


def root_in(dataset: Any, folder: Path) -> Path:
    """Find the folder that torchvision takes for the root.

    Args:
        dataset: torchvision's class.
        folder: The root, or the folder of the files in it.

    Returns:
        The root.

    Raises:
        ExperimentError: If it is neither.
    """
    for root in (folder, folder.parent):
        if (root / dataset.base_folder).is_dir() and (
            root == folder or folder.name == (dataset.base_folder)
        ):
            return root
    raise ExperimentError(
        f"data.folder={folder}: expected a folder {dataset.base_folder} in it (unpack "
        f"{dataset.filename} there); leave data.folder out to have it downloaded"
    )


def downloaded(dataset: Any, root: Path) -> Path:
    """Let torchvision download and unpack the data, unless it is there already.

    Args:
        dataset: torchvision's class.
        root: Where to.

    Returns:
        The root.

    Raises:
        ExperimentError: If that fails; the message says what else can be done.
    """
    if all((root / dataset.base_folder / name).is_file() for name, _ in files_of(dataset)):
        return root
    try:
        dataset(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ExperimentError(
            f"{dataset.__name__} is not in {root}, and its download failed ({reason}). Unpack "
            f"{dataset.filename} somewhere and set data.folder to that place, or try again with a "
            "working network."
        ) from error
    return root


def check_files(dataset: Any, root: Path) -> None:
    """Make sure that every file is there and whole.

    Args:
        dataset: torchvision's class.
        root: The folder that holds the folder of the files.

    Raises:
        ExperimentError: If a file is missing, or its checksum is another.
    """
    from torchvision.datasets.utils import calculate_md5

    for name, expected in files_of(dataset):
        path = root / dataset.base_folder / name
        if not path.is_file():
            raise ExperimentError(f"{path}: no such file; unpack {dataset.filename} anew")
        found = calculate_md5(path)
        if found != expected:
            raise ExperimentError(
                f"{path}: its MD5 checksum is {found}, expected {expected}; the file is cut short "
                f"or damaged: unpack {dataset.filename} anew"
            )


def read(dataset: Any, root: Path, train: bool, mean: Tensor, std: Tensor) -> ImageSet:
    """Read one of the two sets.

    Args:
        dataset: torchvision's class.
        root: The folder that holds the folder of the files.
        train: Whether the training set is wanted.
        mean: What is subtracted from pixels from 0 to 1, for each channel.
        std: What they are divided by.

    Returns:
        The images as floats.
    """
    content = dataset(str(root), train=train)
    pixels = torch.from_numpy(content.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet((pixels.float() / 255 - mean) / std, torch.tensor(content.targets))
