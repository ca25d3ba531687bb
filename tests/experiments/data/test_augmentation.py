import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from nysact.experiments.config.data import ImageData
from nysact.experiments.data.augmentation import Augmentation, AugmentedImages, OnPixels, policy
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.data.loaders import DeviceLoader, Share, StandardLoader
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded


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


GREY = (124, 116, 104)


def test_trivial_augment_interpolates_as_it_is_told():
    for interpolation in ("bilinear", "bicubic"):
        found = policy("trivial-augment", interpolation, 224, GREY).interpolation
        assert found == InterpolationMode(interpolation)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_randaugment_interpolates_as_it_is_told(interpolation):
    for operation in policy("rand-m9-mstd0.5-inc1", interpolation, 224, GREY).ops:
        assert operation.kwargs["resample"] == Image.Resampling[interpolation.upper()]
        assert operation.kwargs["fillcolor"] == GREY


@pytest.mark.parametrize("name", ["trivial-augment", "rand-m9-n4-p1.0-inc1"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_policies_read_grey_and_coloured_pictures(name, mode):
    picture = Image.radial_gradient("L").resize((32, 32)).convert(mode)
    change = policy(name, "bicubic", 32, GREY[: len(mode)])
    changed = set()
    for seed in range(60):
        with seeded(seed):
            found = change(picture)
        assert (found.mode, found.size) == (mode, (32, 32))
        changed.add(found.tobytes())
    assert len(changed) > 30


@pytest.mark.parametrize("notation", ["rand-m10-inc1", "rand-m10", "rand-m0-inc1", "rand-m0"])
def test_every_operation_does_with_the_least_and_the_greatest_magnitude(notation):
    picture = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    for operation in policy(notation, "bilinear", 32, GREY).ops:
        operation.prob = 1.0
        assert operation(picture).size == (32, 32)


def test_unknown_policy_is_an_error():
    with pytest.raises(ExperimentError, match=r"data\.augmentation='auto': expected trivial-augm"):
        policy("auto", "bilinear", 224, GREY)


CPU = torch.device("cpu")
MEAN, STD = torch.tensor([0.3, 0.4, 0.5]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.1]).view(3, 1, 1)


def images(channels: int = 3) -> Data:
    """Twelve images of whole pixels, standardised."""
    pixels = torch.randint(256, (12, channels, 16, 16)) / 255
    mean, std = MEAN[:channels], STD[:channels]
    black, white = (tuple(((edge - mean) / std).flatten().tolist()) for edge in (0, 1))
    train = ImageSet((pixels - mean) / std, torch.arange(12))
    return Data(train, train, black, white)


def dataset(found: Data, **changes) -> AugmentedImages:
    return AugmentedImages(found, ImageData(name="cifar10", loader="standard", **changes))


@pytest.mark.parametrize("channels", [1, 3])
def test_policy_sees_the_pixels_and_its_result_is_standardised(channels):
    found = images(channels)
    black, white = (torch.tensor(edge).view(-1, 1, 1) for edge in (found.black, found.white))
    seen = []

    def turned(picture):
        seen.append(picture)
        return picture.transpose(0)  # mirrors it left to right

    image = found.train.images[0]
    changed = OnPixels(turned, black, white)(image)
    assert torch.allclose(changed, image.flip(-1), atol=1e-5)
    assert seen[0].mode == ("L" if channels == 1 else "RGB")


def test_without_augmentation_images_are_as_they_were():
    found = images()
    loader = StandardLoader(dataset(found), 12, 4, 0, CPU, Share())
    for batch, labels in loader.epoch(0):
        assert torch.equal(batch, found.train.images[labels])


def test_crops_out_of_a_black_frame_and_flips():
    found = images()
    samples = dataset(found, crop=2, flip=True)
    black = torch.tensor(found.black).view(3, 1, 1)
    framed = black.expand(3, 20, 20).clone()
    framed[:, 2:18, 2:18] = found.train.images[0]
    parts = [framed[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    seen = set()
    for _ in range(300):
        image, _ = samples[0]
        plain = [i for i, part in enumerate(parts) if torch.equal(image, part)]
        turned = [-i - 1 for i, part in enumerate(parts) if torch.equal(image, part.flip(-1))]
        assert len(plain) + len(turned) == 1
        seen |= {*plain, *turned}
    assert len(seen) > 40


@pytest.mark.parametrize(
    "options",
    [
        {"augmentation": "trivial-augment", "random_erasing": 1.0},
        {"augmentation": "rand-m9-mstd0.5-inc1", "random_erasing": 1.0, "erase_with": "noise"},
        {"crop": 4, "flip": True},
    ],
)
def test_augmentation_depends_on_seed_epoch_and_place_alone(options):
    found = images()

    def epoch(number: int, start: int = 0, workers: int = 0) -> list[torch.Tensor]:
        samples = dataset(found, **options)
        loader = StandardLoader(samples, 12, 4, 0, CPU, Share(), workers, repeats=3)
        return [batch for batch, _ in loader.epoch(number, start)]

    first = epoch(0)
    torch.manual_seed(7)
    for again in (epoch(0), [*first[:1], *epoch(0, 1)], epoch(0, workers=2)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], epoch(1)[0])
    assert not torch.equal(first[0][0], first[0][1]), "a repeat is augmented alike"
