import pytest
import torch

from nysact.experiments.data.augmentation import flipped
from nysact.experiments.data.images import Data, ImageSet, standardised
from nysact.experiments.data.small_images import load_digits
from nysact.experiments.errors import ExperimentError


def numbered(n: int) -> ImageSet:
    """Images whose left column is their label, all else 0."""
    images = torch.zeros(n, 1, 2, 3)
    images[:, 0, :, 0] = torch.arange(n)[:, None].float()
    return ImageSet(images, torch.arange(n))


def test_flipped_mirrors_left_to_right_where_the_mask_says():
    images = torch.arange(12.0).reshape(2, 1, 2, 3)
    out = flipped(images, torch.tensor([True, False]))
    assert out[0, 0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert torch.equal(out[1], images[1])


def test_test_images_are_standardised_by_the_training_images():
    train = ImageSet(torch.randn(50, 1, 2, 2) * 3 + 5, torch.zeros(50, dtype=torch.long))
    shifted = ImageSet(train.images + 1, train.labels)
    data = standardised(train, shifted)
    assert data.train.images.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.train.images.std().item() == pytest.approx(1, abs=1e-5)
    (black,), (white,) = data.black, data.white
    assert (white - black) * train.images.std().item() == pytest.approx(1, rel=1e-4)
    assert data.test.images.mean().item() == pytest.approx(1 / train.images.std().item(), rel=1e-4)


def test_train_size_keeps_a_random_part_always_the_same_one():
    data = Data(numbered(100), numbered(5))
    torch.manual_seed(1)
    labels = data.of_sizes(10).train.labels.tolist()
    torch.manual_seed(2)
    assert data.of_sizes(10).train.labels.tolist() == labels
    assert labels != sorted(labels)
    assert len(set(labels)) == 10
    assert len(data.of_sizes(10).test) == 5
    assert len(data.of_sizes(None).train) == 100


def test_validation_samples_are_held_out_always_the_same_ones():
    data = Data(numbered(100), numbered(5))
    torch.manual_seed(1)
    found = data.of_sizes(validation=20)
    torch.manual_seed(2)
    held_out, kept = found.validation.labels.tolist(), found.train.labels.tolist()
    assert sorted([*held_out, *kept]) == list(range(100))
    assert len(held_out) == 20
    assert held_out != sorted(held_out)
    assert data.of_sizes(50, validation=20).validation.labels.tolist() == held_out
    assert data.of_sizes(50).validation is None
    assert len(found.test) == 5


def test_a_smaller_training_set_is_the_same_with_and_without_validation():
    data = Data(numbered(100), numbered(5))
    without = data.of_sizes(50).train.labels
    assert torch.equal(data.of_sizes(50, validation=20).train.labels, without)


@pytest.mark.parametrize("size", [100, 101])
def test_holding_out_everything_is_an_error(size):
    data = Data(numbered(100), numbered(5))
    with pytest.raises(ExperimentError, match=rf"validation_size={size}: .* 100 samples"):
        data.of_sizes(validation=size)


def test_train_size_larger_than_what_is_left_is_an_error():
    data = Data(numbered(100), numbered(5))
    with pytest.raises(ExperimentError, match=r"train size 81: .* 80 samples"):
        data.of_sizes(81, validation=20)


@pytest.mark.parametrize("size", [0, 101])
def test_impossible_train_size_names_size_and_limit(size):
    data = Data(numbered(100), numbered(5))
    with pytest.raises(ExperimentError, match=rf"train size {size}: .* 100 samples"):
        data.of_sizes(size)


def test_digits_split_is_fixed_and_stratified():
    data = load_digits()
    assert data.train.images.shape == (1000, 1, 8, 8)
    assert data.test.images.shape == (797, 1, 8, 8)
    shares = [part.labels.bincount() / len(part) for part in (data.train, data.test)]
    assert (shares[0] - shares[1]).abs().max() < 0.002
    assert torch.equal(load_digits().train.images, data.train.images)
    everything = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797, "a sample is in both sets, or lost"
