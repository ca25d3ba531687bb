"""Fashion-MNIST: 70,000 images of clothes, 28x28 pixels in grey, of 10 classes."""

import os
from pathlib import Path

import torch.nn.functional as F

from nysact.experiments.data.idx import read_idx
from nysact.experiments.data.images import Data, ImageSet, standardised
from nysact.experiments.errors import ExperimentError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
SIDE = 28
# Zero pixels on each side: the ResNets' three stages want a side that halves twice.
PADDING = 2
# The SHA-256 checksums of what is in the files; as gzip they differ from one source to another.
CHECKSUMS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(CHECKSUMS)


def load_fashion_mnist(folder: Path | None = None) -> Data:
    """Load Fashion-MNIST, padded to 32x32.

    It is looked for in the folder given, else in the folder of the Debian package
    dataset-fashion-mnist, else torchvision downloads it into the user's cache.

    Args:
        folder: A folder with the four IDX files, plain or ``.gz``, or one in which torchvision
            has stored them (``FashionMNIST/raw``). If given, nothing else is tried.

    Returns:
        The data.

    Raises:
        ExperimentError: If the files are nowhere to be had or are not what they should be.
    """
    if folder is not None:
        files = files_in(folder)
        if files is None:
            raise ExperimentError(
                f"--folder {folder}: expected the files {', '.join(FILES)} (plain or .gz) in it "
                "or in FashionMNIST/raw under it; leave --folder out to let them be found"
            )
    else:
        files = files_in(DEBIAN_FOLDER) or downloaded(cache_folder())
    train_images, train_labels, test_images, test_labels = files
    return standardised(
        read_image_set(train_images, train_labels),
        read_image_set(test_images, test_labels),
        flip=True,
    )


def files_in(folder: Path) -> list[Path] | None:
    """Find the four files in a folder, plain or compressed, or in torchvision's layout.

    Args:
        folder: Where to look.

    Returns:
        The files in the order of ``FILES``, or ``None`` unless all four are there.
    """
    for place in (folder, folder / "FashionMNIST" / "raw"):
        candidates = [(place / name, place / f"{name}.gz") for name in FILES]
        found = [path for pair in candidates for path in pair if path.is_file()]
        if all(any(path in found for path in pair) for pair in candidates):
            return [next(path for path in pair if path in found) for pair in candidates]
    return None


def cache_folder() -> Path:
    """Name the folder for downloads, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nysact"


def downloaded(folder: Path) -> list[Path]:
    """Let torchvision download the files into a folder, unless they are there already.

    Args:
        folder: The folder.

    Returns:
        The four files in the order of ``FILES``.

    Raises:
        ExperimentError: If that fails; the message says what else can be done.
    """
    try:
        # Imported here: only a download needs it.
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(folder), download=True)
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ExperimentError(
            f"Fashion-MNIST is not in {DEBIAN_FOLDER}, and its download failed ({reason}). "
            "Do one of these: apt-get install dataset-fashion-mnist (Debian, Ubuntu); "
            "--folder PATH of a folder with its four IDX files; "
            "or try again with torchvision installed and a working network."
        ) from error
    files = files_in(folder)
    if files is None:
        raise ExperimentError(f"{folder}: torchvision's download left no {', '.join(FILES)}")
    return files


def read_image_set(images_path: Path, labels_path: Path) -> ImageSet:
    """Read images and their labels, and check that they belong together.

    Args:
        images_path: The IDX file of the images.
        labels_path: The IDX file of the labels.

    Returns:
        The images, padded, as floats from 0 to 1, with their labels.

    Raises:
        ExperimentError: If the files are not what they should be.
    """
    images = read_idx(images_path, dimensions=3, sha256=CHECKSUMS[name_of(images_path)])
    labels = read_idx(labels_path, dimensions=1, sha256=CHECKSUMS[name_of(labels_path)])
    if images.shape[1:] != (SIDE, SIDE):
        raise ExperimentError(
            f"{images_path}: images of {images.shape[1]}x{images.shape[2]} pixels, "
            f"expected {SIDE}x{SIDE}"
        )
    if len(images) != len(labels) or len(labels) == 0:
        raise ExperimentError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images in {images_path}, "
            "expected one for each, and at least one"
        )
    if labels.max() >= CLASSES:
        raise ExperimentError(
            f"{labels_path}: label {int(labels.max())}, expected 0 to {CLASSES - 1}"
        )
    padded = F.pad(images, (PADDING, PADDING, PADDING, PADDING))
    return ImageSet(padded.unsqueeze(1).float() / 255, labels.long())


def name_of(path: Path) -> str:
    """Give the name that a file has among :data:`CHECKSUMS`."""
    return path.name.removesuffix(".gz")
