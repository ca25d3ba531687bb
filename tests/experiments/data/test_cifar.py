from pathlib import Path

import pytest
import torch
from torchvision import datasets

from nysact.experiments.data import small_images as cifar
from nysact.experiments.data.small_images import STATISTICS, load_cifar
from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes import find_runs, load
from nysact.experiments.run import problem
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs

from .picture_files import CIFAR_FILES, FOLDERS, META, take_checksums, write_cifar

DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


@pytest.fixture(autouse=True)
def _nothing_remembered():
    problem.load_images.cache_clear()
    yield
    problem.load_images.cache_clear()


@pytest.fixture(params=DATASETS)
def name(request):
    return request.param


@pytest.fixture
def written(name, tmp_path, monkeypatch):
    found = write_cifar(tmp_path, name)
    take_checksums(monkeypatch, DATASETS[name], tmp_path)
    return found


def test_pixels_and_labels_are_those_of_the_files(name, written, tmp_path):
    data = load_cifar(name, tmp_path)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in STATISTICS[name])
    *train, test = CIFAR_FILES[name]
    for part, files in ((data.train, train), (data.test, [test])):
        pixels = torch.cat([torch.from_numpy(written[file][0]) for file in files])
        assert torch.allclose((part.images * std + mean) * 255, pixels.float(), atol=1e-3)
        assert part.labels.tolist() == [label for file in files for label in written[file][1]]
    for value, pixel in ((data.black, 0.0), (data.white, 1.0)):
        found = torch.tensor(value).view(1, 3, 1, 1)
        assert torch.allclose(found * std + mean, torch.tensor(pixel), atol=1e-6)


def test_folder_of_the_files_itself_will_do(name, written, tmp_path):
    data = load_cifar(name, tmp_path / FOLDERS[name])
    assert torch.equal(data.train.images, load_cifar(name, tmp_path).train.images)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [cut_short, Path.unlink])
@pytest.mark.parametrize("place", [-1, 0, "meta"])
def test_damaged_or_missing_file_is_an_error(name, written, tmp_path, damage, place):
    file = META[name] if place == "meta" else CIFAR_FILES[name][place]
    damage(tmp_path / FOLDERS[name] / file)
    with pytest.raises(ExperimentError, match=rf"{FOLDERS[name]}: a file is .* unpack cifar-"):
        load_cifar(name, tmp_path)


def test_files_with_other_checksums_than_the_real_ones_are_refused(name, tmp_path):
    write_cifar(tmp_path, name)
    with pytest.raises(ExperimentError, match="a file is missing or damaged"):
        load_cifar(name, tmp_path)


def test_wrong_folder_is_an_error(name, tmp_path):
    with pytest.raises(ExperimentError, match=rf"expected a folder {FOLDERS[name]} in it"):
        load_cifar(name, tmp_path)


def test_data_in_the_cache_is_not_downloaded_again(name, written, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "cache_folder", lambda: tmp_path)
    assert len(load_cifar(name).test) == 8


def test_failed_download_says_what_to_do(name, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(cifar, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fails)
    with pytest.raises(ExperimentError, match=r"download failed \(no network\).*set data\.folder"):
        load_cifar(name)


SHORT = ("steps=2", "batch_size=4", "threads=1", "evaluation_interval=1")


@pytest.mark.parametrize(
    "row", ["NysAct-S", *(pytest.param(row, marks=pytest.mark.slow) for row in ("SGD", "KFAC"))]
)
def test_recipe_trains_on_the_true_format(name, written, tmp_path, row):
    overrides = (*SHORT, f"data.folder={tmp_path}")
    recipe = load(f"table2-{name}")
    (config,) = find_runs(recipe, [row], ["ResNet-32, 100 epochs"], [0], overrides)
    assert (config.data.flip, config.data.crop) == (True, 4)
    run(config, tmp_path / "runs")
    (stored,) = load_runs(tmp_path / "runs")
    assert [line["step"] for line in stored.metrics] == [1, 2]
    assert "failure" not in stored.result
