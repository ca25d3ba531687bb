from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from nysact.experiments.config.data import FolderData
from nysact.experiments.data.imagenet import (
    MEAN,
    STD,
    centre_transform,
    picture_sets,
    training_transform,
    without_validation,
)
from nysact.experiments.data.loaders import Share, StandardLoader
from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes import find_runs, load
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.run.kills import assert_same, run_with_kills

from .picture_files import write_imagenet

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path) -> Path:
    write_imagenet(tmp_path / "imagenet")
    return tmp_path / "imagenet"


def data(folder, **changes) -> FolderData:
    sides = {"train_resolution": 24, "test_resolution": 24, "test_resize": 28, "workers": 0}
    return FolderData(name="imagenet", folder=folder and str(folder), **{**sides, **changes})


def test_pictures_are_standardised_tensors_with_their_class(folder):
    train, test = picture_sets(data(folder), classes=2)
    assert (len(train), len(test)) == (24, 6)
    image, label = test[5]
    assert (image.shape, image.dtype, label) == ((3, 24, 24), torch.float32, 1)
    pixels = image * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_grey_pictures_get_three_channels(folder):
    path = next((folder / "val").rglob("*.JPEG"))
    Image.new("L", (50, 50), 128).save(path)
    image, _ = picture_sets(data(folder), classes=2)[1][0]
    assert image.shape == (3, 24, 24)


@pytest.mark.parametrize("augmentation", ["trivial-augment", "rand-m9-mstd0.5-inc1"])
def test_augmentation_depends_on_seed_epoch_and_place_alone(folder, augmentation):
    options = {"augmentation": augmentation, "random_erasing": 0.5, "erase_with": "noise"}
    train, _ = picture_sets(data(folder, **options), classes=2)

    def epoch(number: int, start: int = 0, workers: int = 0) -> list[torch.Tensor]:
        loader = StandardLoader(train, len(train), 6, 0, CPU, Share(), workers)
        return [images for images, _ in loader.epoch(number, start)]

    first = epoch(0)
    for again in (epoch(0), [*first[:2], *epoch(0, 2)], epoch(0, workers=2)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], epoch(1)[0])


def test_policy_interpolates_as_the_recipes_of_the_networks_do():
    def pictures_of(column: str):
        (config,) = find_runs(load("table4"), ["SGD"], [column], [0])
        return training_transform(config.data).transforms

    crop, _, trivial, *_ = pictures_of("ResNet-50, 100 epochs")
    assert crop.interpolation == trivial.interpolation == InterpolationMode.BILINEAR
    crop, _, randaugment, *_ = pictures_of("DeiT-S, 100 epochs")
    assert crop.interpolation == InterpolationMode.BICUBIC
    assert {o.kwargs["resample"] for o in randaugment.ops} == {Image.Resampling.BICUBIC}


def test_validation_pictures_are_held_out_and_read_as_test_pictures_are(folder):
    options = data(folder, validation_size=5, augmentation="trivial-augment")
    everything, _ = picture_sets(options, classes=2)
    train, held_out = without_validation(everything, options)
    assert (len(train), len(held_out)) == (19, 5)
    assert sorted([*train.indices, *held_out.indices]) == list(range(24))
    whole, _ = picture_sets(data(folder), classes=2)
    whole.transform = centre_transform(options)
    for index, (image, label) in zip(held_out.indices, held_out, strict=True):
        assert torch.equal(image, whole[index][0])
        assert label == whole[index][1]
    assert without_validation(everything, data(folder)) == (everything, None)


def break_nothing_named(folder):
    return None


def break_no_val(folder):
    for path in sorted((folder / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "val").rmdir()
    return folder


def break_flat_val(folder):
    for path in sorted((folder / "val").rglob("*.JPEG")):
        path.rename(folder / "val" / path.name)
    for path in list((folder / "val").iterdir()):
        if path.is_dir():
            path.rmdir()
    return folder


def break_other_classes(folder):
    (folder / "val" / "n01440764").rename(folder / "val" / "n09999999")
    return folder


MISTAKES = {
    break_nothing_named: r"data\.folder is not set: ImageNet cannot be downloaded",
    break_no_val: r"val: no such folder",
    break_flat_val: r"val: Couldn't find any class folder",
    break_other_classes: r"n01440764 is in one of them only",
}


@pytest.mark.parametrize(("break_it", "message"), MISTAKES.items())
def test_wrong_folder_is_an_error(folder, break_it, message):
    with pytest.raises(ExperimentError, match=message):
        picture_sets(data(break_it(folder)), classes=2)


def test_other_number_of_classes_is_an_error(folder):
    with pytest.raises(ExperimentError, match=r"2 classes, but model\.options\.classes is 1000"):
        picture_sets(data(folder), classes=1000)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [lambda whole: whole[:300], lambda whole: b"no picture"])
def test_damaged_picture_is_an_error_that_names_it(folder, workers, content):
    path = next((folder / "train").rglob("*.JPEG"))
    path.write_bytes(content(path.read_bytes()))
    train, _ = picture_sets(data(folder), classes=2)
    loader = StandardLoader(train, len(train), 6, 0, CPU, Share(), workers)
    with pytest.raises(ExperimentError) as error:
        list(loader.epoch(0))
    assert str(error.value).startswith(f"{path}: not a whole picture (")
    assert "\n" not in str(error.value)


SHORT = (
    *("steps=2", "batch_size=8", "threads=1", "model.options.classes=2", "data.workers=0"),
    *("model.options.image_size=32", "data.train_resolution=32", "data.test_resolution=32"),
    "data.test_resize=36",
)


@pytest.mark.parametrize(
    "column",
    [pytest.param("ResNet-50, 100 epochs", marks=pytest.mark.slow), "DeiT-S, 100 epochs"],
)
def test_recipe_trains_on_the_true_format(folder, tmp_path, column):
    overrides = (*SHORT, f"data.folder={folder}")
    (config,) = find_runs(load("table4"), ["NysAct-S"], [column], [0], overrides)
    assert config.optimizer.options["inv_interval"] == (50 if column.startswith("R") else 5)
    run(config.override(["data.validation_size=6"]), tmp_path / "runs")
    (stored,) = load_runs(tmp_path / "runs")
    assert stored.result["steps"] == 2
    assert {"test_accuracy", "validation_accuracy"} <= set(stored.metrics[-1])
    assert "failure" not in stored.result


@pytest.mark.slow
@pytest.mark.parametrize("column", ["ResNet-50, 100 epochs", "DeiT-S, 100 epochs"])
def test_recipe_at_full_resolution_goes_on_exactly(folder, tmp_path, column):
    overrides = (*SHORT[:4], "data.workers=2", f"data.folder={folder}")
    (config,) = find_runs(load("table4"), ["NysAct-S"], [column], [0], overrides)
    undisturbed = run(config, tmp_path / "a")
    assert_same(undisturbed, run_with_kills(config, tmp_path / "b", [1], checkpoint_seconds=0))
