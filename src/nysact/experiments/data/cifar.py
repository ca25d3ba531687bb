"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32 pixels, of 10 or 100 classes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.data.fashion_mnist import cache_folder
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.errors import ExperimentError

# Mean and standard deviation of the training pixels of each channel, as in the paper.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_cifar(name: str, folder: Path | None = None) -> Data:
    """Load a CIFAR by torchvision, from a folder or, downloaded where missing, from the cache."""
    dataset = dataset_class(name)
    root = cache_folder() if folder is None else root_in(dataset, folder)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in STATISTICS[name])
    train, test = (
        image_set(opened(dataset, root, train, download=folder is None), mean, std)
        for train in (True, False)
    )
    black, white = (tuple(((pixel - mean) / std).flatten().tolist()) for pixel in (0.0, 1.0))
    return Data(train, test, black, white)


def dataset_class(name: str) -> Any:
    """Find torchvision's class, imported here because few runs need it."""
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


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
        reason = " ".join(str(error).split())
        if download:
            raise ExperimentError(
                f"{dataset.__name__} is not in {root}, and its download failed ({reason}). Unpack "
                f"{dataset.filename} somewhere and set data.folder to that place, or try again "
                "with a working network."
            ) from error
        raise ExperimentError(
            f"{root / dataset.base_folder}: a file is missing or damaged, by torchvision's list of "
            f"checksums; unpack {dataset.filename} there again"
        ) from error


def is_cached(name: str) -> bool:
    """Whether the files are in the cache."""
    dataset = dataset_class(name)
    folder = cache_folder() / dataset.base_folder
    return all((folder / file).is_file() for file, _ in dataset.train_list + dataset.test_list)


def image_set(content: Any, mean: Tensor, std: Tensor) -> ImageSet:
    """Turn torchvision's pixels into standardised floats."""
    pixels = torch.from_numpy(content.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet((pixels.float() / 255 - mean) / std, torch.tensor(content.targets))
