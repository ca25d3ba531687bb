import pytest
import torch

from nysact.experiments.data.augmentation import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.data.loaders import DeviceLoader, Share


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("erase_with", ["zero", "noise"])
def test_erasing_fills_a_rectangle_of_some_images(erase_with):
    images = torch.full((400, 2, 16, 16), 9.0)
    erasing = Augmentation(erasing=0.25, erase_with=erase_with)
    state = torch.get_rng_state()
    found = erasing.apply(images, erasing.draw(400, generator()))
    assert torch.equal(torch.get_rng_state(), state), "the global stream was drawn from"
    assert (images == 9).all(), "the images given were changed"
    erased = found != 9
    hit = erased.flatten(1).any(1)
    assert 60 < hit.sum() < 140
    for mask in erased[hit]:
        rows, columns = mask.any(0).any(1), mask.any(0).any(0)
        assert torch.equal(mask, (rows[:, None] & columns).expand_as(mask)), "no rectangle"
    values = found[erased]
    if erase_with == "zero":
        assert (values == 0).all()
    else:
        assert abs(values.mean()) < 0.1
        assert values.std() == pytest.approx(1, abs=0.05)


def test_what_is_erased_does_not_depend_on_the_other_images():
    images = torch.randn(20, 1, 8, 8)
    erasing = Augmentation(erasing=0.5, erase_with="noise")
    drawn = erasing.draw(20, generator())
    whole = erasing.apply(images, drawn)
    part = erasing.apply(images[1::2], {name: rows[1::2] for name, rows in drawn.items()})
    assert torch.equal(whole[1::2], part)


def test_erasing_leaves_what_else_is_drawn_as_it_was():
    images = ImageSet(torch.randn(40, 1, 8, 8), torch.arange(40))

    def first(erasing):
        augmentation = Augmentation(flip=True, crop=2, erasing=erasing)
        return next(DeviceLoader(images, 8, 0, augmentation, Share()).epoch(0))

    plain, labels = first(0.0)
    erased, same = first(1.0)
    assert torch.equal(labels, same)
    assert not torch.equal(plain, erased)
    assert torch.equal(plain[erased != 0], erased[erased != 0])
