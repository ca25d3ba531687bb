import pytest
import torch
from torch.utils.data import Dataset

from nysact.experiments.data.augmentation import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.data.loaders import DeviceLoader, Share, StandardLoader
from nysact.experiments.data.mixing import MixingLoader
from nysact.experiments.errors import ExperimentError

CPU = torch.device("cpu")
SAMPLES, BATCH = 50, 24
LABELS = torch.arange(SAMPLES)


class Numbered(Dataset):
    """Pictures whose pixels are all their number, of a class each."""

    def __getitem__(self, index):
        return torch.full((1, 4, 4), float(index)), index


def standard(share: Share, repeats: int) -> StandardLoader:
    return StandardLoader(Numbered(), SAMPLES, BATCH, 0, CPU, share, repeats=repeats)


def on_device(share: Share, repeats: int) -> DeviceLoader:
    images = ImageSet(LABELS.float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4), LABELS)
    return DeviceLoader(images, BATCH, 0, Augmentation(), share, repeats)


@pytest.fixture(params=[standard, on_device], ids=["standard", "device"])
def make(request):
    return request.param


def mixing(loader, share: Share = Share(), mixup=0.8, cutmix=0.0, classes=SAMPLES):  # noqa: B008
    return MixingLoader(loader, mixup, cutmix, classes, 0, share)


@pytest.mark.parametrize("repeats", [1, 3, 4])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_picture_is_mixed_with_another_one(make, repeats, processes):
    for index in range(processes):
        share = Share(index, processes)
        for _, shares in mixing(make(share, repeats), share).epoch(0):
            assert ((shares > 0).sum(1) == 2).all()


def test_pixels_are_mixed_as_the_classes_are(make):
    for images, shares in mixing(make(Share(), 3)).epoch(0):
        expected = shares @ LABELS.float()
        assert torch.allclose(images, expected.view(-1, 1, 1, 1).expand_as(images), rtol=1e-5)


def test_cutmix_takes_as_many_pixels_as_shares(make):
    found = set()
    for epoch in range(3):
        for images, shares in mixing(make(Share(), 3), mixup=0.0, cutmix=1.0).epoch(epoch):
            for picture, share in zip(images, shares, strict=True):
                numbers, counts = picture.unique(return_counts=True)
                assert share[numbers.long()].tolist() == pytest.approx((counts / 16).tolist())
                found.add(len(numbers))
    assert found == {1, 2}


@pytest.mark.parametrize("repeats", [1, 3, 4])
@pytest.mark.parametrize("processes", [2, 4])
def test_batches_of_several_processes_are_those_of_one(make, repeats, processes):
    def batches(share: Share) -> list:
        return list(mixing(make(share, repeats), share, cutmix=1.0).epoch(2))

    parts = [batches(Share(index, processes)) for index in range(processes)]
    for number, (images, shares) in enumerate(batches(Share())):
        for index in range(processes):
            assert torch.equal(parts[index][number][0], images[index::processes])
            assert torch.equal(parts[index][number][1], shares[index::processes])


def test_with_both_each_gets_some_of_the_batches(make):
    def kinds(**alphas) -> list[bool]:
        loader = mixing(make(Share(), 1), **alphas)
        found = [images for number in range(8) for images, _ in loader.epoch(number)]
        return [bool((images == images.round()).all()) for images in found]

    assert not any(kinds(mixup=0.8, cutmix=0.0))
    assert all(kinds(mixup=0.0, cutmix=1.0))
    assert len(set(kinds(mixup=0.8, cutmix=1.0))) == 2


def test_mixing_depends_on_seed_epoch_and_place_alone(make):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    loader = mixing(make(Share(), 3), cutmix=1.0)
    whole = list(loader.epoch(0))
    assert torch.equal(torch.get_rng_state(), state), "the global stream was drawn from"
    assert len(loader) == len(whole) == 2
    for (images, shares), (again, others) in zip(whole[1:], loader.epoch(0, 1), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(shares, others)
    assert not torch.equal(whole[0][1], next(loader.epoch(1))[1])


WRONG = {
    "odd shares": (Share(0, 8), 1, "batch_size=24: .* expected a multiple of 16, twice the"),
    "repeats": (Share(), 13, r"batch_size=24: with data\.repeats=13 .* expected at least 26"),
}


@pytest.mark.parametrize(("share", "repeats", "message"), WRONG.values(), ids=WRONG)
def test_batch_without_pairs_is_an_error(make, share, repeats, message):
    with pytest.raises(ExperimentError, match=message):
        mixing(make(share, repeats), share)
