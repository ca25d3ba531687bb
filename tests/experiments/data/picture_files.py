"""Writes CIFAR and ImageNet in their true on-disk formats, in small."""

import hashlib
import pickle
from pathlib import Path

import numpy
from PIL import Image

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
CIFAR_FILES = {
    "cifar10": [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"],
    "cifar100": ["train", "test"],
}
META = {"cifar10": "batches.meta", "cifar100": "meta"}


def write_cifar(root: Path, name: str, samples: int = 8) -> dict[str, tuple]:
    """Write random images, so many in each file; return pixels and labels of each."""
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    classes = 10 if name == "cifar10" else 100
    key = "labels" if name == "cifar10" else "fine_labels"
    written = {}
    for file in CIFAR_FILES[name]:
        pixels = random.integers(0, 256, (samples, 3072), dtype=numpy.uint8)
        labels = random.integers(0, classes, samples).tolist()
        dump(folder / file, {"data": pixels, key: labels, "batch_label": file})
        written[file] = (pixels.reshape(-1, 3, 32, 32), labels)
    names = "label_names" if name == "cifar10" else "fine_label_names"
    dump(folder / META[name], {names: [f"class {number}" for number in range(classes)]})
    return written


def dump(path: Path, content: dict) -> None:
    # Of the same protocol as the original files.
    path.write_bytes(pickle.dumps(content, protocol=2))


def take_checksums(monkeypatch, dataset, root: Path) -> None:
    """Let torchvision expect the files that are there, and not those of the real data."""

    def checksum(file: str) -> str:
        return hashlib.md5((root / dataset.base_folder / file).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        files = [[file, checksum(file)] for file, _ in getattr(dataset, part)]
        monkeypatch.setattr(dataset, part, files)
    meta = {**dataset.meta, "md5": checksum(dataset.meta["filename"])}
    monkeypatch.setattr(dataset, "meta", meta)


def write_imagenet(root: Path, classes: int = 2, train: int = 12, val: int = 3) -> None:
    """Write JPEG files of differing sizes for each class."""
    random = numpy.random.default_rng(0)
    for part, number in (("train", train), ("val", val)):
        for label in range(classes):
            wnid = f"n{label + 1440764:08}"
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for index in range(number):
                size = (40 + 3 * index, 60 - 2 * index, 3)
                pixels = random.integers(0, 256, size, dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{index}.JPEG")
