import gzip
import hashlib
import sys
from pathlib import Path

import pytest
import torch

from nysact.experiments.data import small_images
from nysact.experiments.data.small_images import load_fashion_mnist
from nysact.experiments.errors import ExperimentError
from tests.experiments.data.idx_files import (
    accept_any_content,
    idx_bytes,
    write_fashion_mnist,
)

CHECKSUMS = small_images.CHECKSUMS


@pytest.fixture(autouse=True)
def _nothing_installed(tmp_path, monkeypatch):
    """Hide the Debian package and the user's cache, forbid downloads, and let contents differ."""
    accept_any_content(monkeypatch)
    monkeypatch.setattr(small_images, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    download(monkeypatch, OSError("no network"))


def download(monkeypatch, outcome: Exception | int) -> None:
    """Put a fake torchvision in place that fails, or writes so many training images."""

    def fashion_mnist_of_torchvision(root: str, download: bool) -> None:
        assert download
        if isinstance(outcome, Exception):
            raise outcome
        write_fashion_mnist(Path(root) / "FashionMNIST" / "raw", train=outcome)

    module = type(sys)("torchvision.datasets")
    module.FashionMNIST = fashion_mnist_of_torchvision
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_loads_plain_and_compressed_files_also_in_torchvisions_layout(tmp_path, suffix, place):
    written = write_fashion_mnist(tmp_path / place, suffix)
    data = load_fashion_mnist(tmp_path)
    for part, (images, labels) in zip((data.train, data.test), written.values(), strict=True):
        assert part.images.shape == (len(images), 1, 32, 32)
        assert torch.equal(part.labels, labels.long())
        # Standardising is affine: undone by the two extreme values, it gives the pixels back.
        inside = part.images[:, 0, 2:30, 2:30]
        low, high = inside.min(), inside.max()
        assert torch.allclose((inside - low) / (high - low) * 255, images.float(), atol=1e-3)
        border = torch.cat([part.images[:, :, :2].flatten(), part.images[:, :, :, 30:].flatten()])
        assert (border == low).all(), "the border is not black"


def test_given_folder_comes_before_the_debian_package(tmp_path):
    write_fashion_mnist(tmp_path / "debian", train=30)
    write_fashion_mnist(tmp_path / "given", train=50)
    assert len(load_fashion_mnist(tmp_path / "given").train) == 50


def test_debian_package_comes_before_a_download(tmp_path, monkeypatch):
    write_fashion_mnist(tmp_path / "debian", train=30)
    download(monkeypatch, 60)
    assert len(load_fashion_mnist().train) == 30


def test_downloads_if_there_is_nothing_else(monkeypatch):
    download(monkeypatch, 60)
    assert len(load_fashion_mnist().train) == 60


@pytest.mark.parametrize(
    "failure",
    [OSError("no network"), RuntimeError("Error downloading"), ImportError("no torchvision")],
)
def test_where_nothing_works_the_error_says_what_to_do(monkeypatch, failure):
    download(monkeypatch, failure)
    with pytest.raises(ExperimentError) as error:
        load_fashion_mnist()
    for remedy in ("apt-get install dataset-fashion-mnist", "data.folder", "network", str(failure)):
        assert remedy in str(error.value)


def test_given_folder_without_the_files_is_not_passed_over(tmp_path):
    write_fashion_mnist(tmp_path / "debian")
    write_fashion_mnist(tmp_path / "given")
    (tmp_path / "given" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ExperimentError, match=r"given: expected .*t10k-labels"):
        load_fashion_mnist(tmp_path / "given")


def test_bad_file_in_the_given_folder_is_not_passed_over(tmp_path):
    write_fashion_mnist(tmp_path / "debian")
    write_fashion_mnist(tmp_path / "given")
    (tmp_path / "given" / "t10k-images-idx3-ubyte.gz").write_bytes(b"nonsense")
    with pytest.raises(ExperimentError, match=r"given/t10k-images-idx3-ubyte\.gz: cannot be read"):
        load_fashion_mnist(tmp_path / "given")


@pytest.fixture
def checked(monkeypatch):
    monkeypatch.setattr(small_images, "CHECKSUMS", CHECKSUMS)


@pytest.mark.parametrize("place", ["given", "debian", "cache/nysact"])
def test_other_contents_than_the_real_ones_are_refused_wherever_they_lie(tmp_path, checked, place):
    write_fashion_mnist(tmp_path / place)
    folder = tmp_path / "given" if place == "given" else None
    if place == "cache/nysact":
        sys.modules["torchvision.datasets"].FashionMNIST = lambda root, download: None
    with pytest.raises(ExperimentError, match=r"train-images.*SHA-256 checksum.*download it again"):
        load_fashion_mnist(folder)


DAMAGES = {
    "another label": lambda content: content[:15] + b"\x08" + content[16:],
    "cut short": lambda content: content[:-1],
    "cut short in the header": lambda content: content[:6],
    "too long": lambda content: content + b"x",
    "empty": lambda content: b"",
    "images": lambda content: b"\0\0\x08\3" + content[4:],
    "a web page": lambda content: b"<!DOCTYPE html>",
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_checksum_tells_of_every_damage_to_the_content(tmp_path, monkeypatch, suffix, damage):
    labels = torch.arange(20, dtype=torch.uint8) % 10
    write_fashion_mnist(tmp_path, suffix)
    name, content = "t10k-labels-idx1-ubyte", idx_bytes(labels)
    expected = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(small_images.CHECKSUMS, name, expected)
    assert load_fashion_mnist(tmp_path).test.labels.tolist() == labels.tolist()
    content = damage(content)
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ExperimentError, match=rf"{path.name}: .* is \w{{64}}, expected {expected}"):
        load_fashion_mnist(tmp_path)


PACKED = gzip.compress(idx_bytes(torch.arange(200, dtype=torch.uint8)))
BAD_GZIP = {
    "cut short": PACKED[:-10],
    "not gzip": idx_bytes(torch.arange(20)),
    "damaged": PACKED[:12] + b"\xff\xff\xff\xff" + PACKED[16:],
    "wrong checksum": PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
}


@pytest.mark.parametrize("content", BAD_GZIP.values(), ids=BAD_GZIP)
def test_bad_gzip_is_an_error_that_names_the_file(tmp_path, content):
    write_fashion_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(ExperimentError, match=r"t10k-labels-idx1-ubyte\.gz: cannot be read"):
        load_fashion_mnist(tmp_path)


REAL = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not REAL.is_dir(), reason="the Debian package is not installed")
def test_real_files_are_those_that_are_expected():
    for name, expected in CHECKSUMS.items():
        content = gzip.decompress((REAL / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected
