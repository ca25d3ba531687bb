"""Writes Fashion-MNIST-like files in their true on-disk format."""

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor

from nysact.experiments.data import small_images

NAMES = {"train": "train", "test": "t10k"}


def idx_bytes(values: Tensor) -> bytes:
    header = bytes([0, 0, 8, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    return header + bytes(values.flatten().tolist())


def write_idx(path: Path, values: Tensor) -> None:
    content = idx_bytes(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion_mnist(
    folder: Path, suffix: str = ".gz", train: int = 40, test: int = 20
) -> dict[str, tuple[Tensor, Tensor]]:
    """Write random images and labels 0 to 9 in turn; return them as uint8."""
    generator = torch.Generator().manual_seed(0)
    sets = {}
    for part, size in {"train": train, "test": test}.items():
        images = torch.randint(256, (size, 28, 28), generator=generator, dtype=torch.uint8)
        labels = (torch.arange(size) % 10).to(torch.uint8)
        write_idx(folder / f"{NAMES[part]}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{NAMES[part]}-labels-idx1-ubyte{suffix}", labels)
        sets[part] = (images, labels)
    return sets


def accept_any_content(monkeypatch) -> None:
    """Let files have other contents than those of the real data."""
    monkeypatch.setattr(small_images, "CHECKSUMS", dict.fromkeys(small_images.FILES))
