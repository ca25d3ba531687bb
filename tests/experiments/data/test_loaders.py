import pytest
import torch
from torch.utils.data import Dataset

from nysact.experiments.data.augmentation import Augmentation, cropped
from nysact.experiments.data.images import ImageSet
from nysact.experiments.data.loaders import (
    DeviceLoader,
    Share,
    StandardBatches,
    StandardLoader,
    device_batches,
)
from nysact.experiments.errors import ExperimentError

CPU = torch.device("cpu")
WHOLE = Share()


def numbered(n: int) -> ImageSet:
    """Images whose pixels are all different, and whose label is their number."""
    images = torch.arange(n * 12.0).reshape(n, 1, 3, 4)
    return ImageSet(images, torch.arange(n))


class Noisy(Dataset):
    """Gives its index, and numbers from all global streams."""

    def __getitem__(self, index):
        import random

        import numpy

        noise = torch.tensor([random.random(), numpy.random.rand(), float(torch.rand(()))])
        return noise, index


def on_device(
    n: int = 20, size: int = 4, seed: int = 0, share: Share = WHOLE, repeats: int = 1
) -> DeviceLoader:
    augmentation = Augmentation(flip=True, crop=1, black=(-1.0,))
    return DeviceLoader(numbered(n), size, seed, augmentation, share, repeats)


def standard(seed: int = 0, share: Share = WHOLE, workers: int = 0, repeats: int = 1):
    return StandardLoader(Noisy(), 20, 4, seed, CPU, share, workers, repeats)


LOADERS = {"device": on_device, "standard": standard}


def content(batches) -> list[tuple[list, list]]:
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in batches]


@pytest.fixture(params=LOADERS.values(), ids=LOADERS)
def make(request):
    return request.param


def test_epoch_shows_every_sample_once(make):
    loader = make()
    labels = [label for _, part in content(loader.epoch(0)) for label in part]
    assert sorted(labels) == list(range(20))
    assert len(loader) == 5


def test_epoch_depends_on_seed_and_number_alone(make):
    first = content(make().epoch(3))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loader = make()
    content(loader.epoch(1))
    assert content(loader.epoch(3)) == first
    assert torch.equal(torch.get_rng_state(), state), "the global stream was drawn from"
    assert content(make().epoch(2)) != first
    assert content(make(seed=1).epoch(3)) != first


def test_epoch_can_be_entered_anywhere(make):
    whole = content(make().epoch(1))
    for start in range(6):
        assert content(make().epoch(1, start)) == whole[start:]


def test_processes_share_each_batch(make):
    whole = content(make().epoch(0))
    halves = [content(make(share=Share(index, 2)).epoch(0)) for index in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        assert [label for pair in zip(*(p[1] for p in parts), strict=True) for label in pair] == (
            batch[1]
        )
        assert [x for pair in zip(*(p[0] for p in parts), strict=True) for x in pair] == batch[0]


def test_number_of_reading_processes_changes_nothing():
    assert content(standard(workers=2).epoch(1, 2)) == content(standard().epoch(1, 2))


def test_repeats_show_fewer_samples_in_differing_augmentations(make):
    inputs, labels = zip(*make(repeats=3).epoch(0), strict=True)
    labels = torch.cat(labels)
    assert len(labels) == 20
    assert torch.equal(labels[:3], labels[:1].expand(3))
    assert sorted(labels.unique(return_counts=True)[1].tolist()) == [2, 3, 3, 3, 3, 3, 3]
    # Two of the few crops of so small an image may be alike.
    assert len(torch.cat(inputs).unique(dim=0)) > (19 if make is standard else 14)


def test_augmentation_does_not_change_the_order():
    plain = DeviceLoader(numbered(20), 4, 0, Augmentation(), WHOLE)
    assert [labels for _, labels in content(plain.epoch(0))] == [
        labels for _, labels in content(on_device().epoch(0))
    ]


def test_incomplete_batch_is_left_out():
    assert len(on_device(n=11)) == 2
    assert len(content(on_device(n=11).epoch(0))) == 2


def test_batch_larger_than_the_data_is_an_error():
    with pytest.raises(ExperimentError, match="batch_size=4: the training set has 3 samples"):
        on_device(n=3)


def test_batch_that_cannot_be_shared_is_an_error():
    with pytest.raises(ExperimentError, match="batch_size=4: expected a multiple of the 3"):
        on_device(share=Share(0, 3))


def test_augmented_images_are_parts_of_the_framed_original_or_its_mirror_image():
    loader, data = on_device(n=200), numbered(200)
    mirrored = 0
    corners = set()
    for images, labels in loader.epoch(0):
        for image, label in zip(images[:, 0], labels, strict=True):
            framed = torch.full((5, 6), -1.0)
            framed[1:4, 1:5] = data.images[label, 0]
            parts = {(y, x): framed[y : y + 3, x : x + 4] for y in range(3) for x in range(3)}
            plain = [at for at, part in parts.items() if torch.equal(image, part)]
            turned = [at for at, part in parts.items() if torch.equal(image, part.flip(-1))]
            assert len(plain) + len(turned) == 1
            mirrored += len(turned)
            corners |= {*plain, *turned}
    assert 60 < mirrored < 140
    assert len(corners) == 9


def test_crop_fills_each_channel_with_its_own_black():
    images = torch.ones(1, 2, 2, 2)
    found = cropped(images, torch.tensor([[0, 0]]), frame=1, black=(-1.0, -2.0))
    assert found[0, 0].tolist() == [[-1, -1], [-1, 1]]
    assert found[0, 1].tolist() == [[-2, -2], [-2, 1]]


def test_without_augmentation_images_are_as_they_were():
    data = numbered(8)
    loader = DeviceLoader(data, 4, 0, Augmentation(), Share())
    for images, labels in loader.epoch(0):
        assert torch.equal(images, data.images[labels])


def test_test_batches_hold_every_sample_once_and_in_order():
    data = numbered(10)
    found = list(device_batches(data.images, data.labels, 4, Share()))
    assert [len(labels) for _, labels in found] == [4, 4, 2]
    assert torch.equal(torch.cat([images for images, _ in found]), data.images)
    read = StandardBatches(Noisy(), 10, 4, CPU, Share())
    assert [labels for _, labels in content(read)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert content(read) == content(read), "the second time differs"


def test_test_batches_are_shared():
    data = numbered(10)
    labels = [
        label
        for index in range(3)
        for _, part in content(device_batches(data.images, data.labels, 4, Share(index, 3)))
        for label in part
    ]
    assert sorted(labels) == list(range(10))
