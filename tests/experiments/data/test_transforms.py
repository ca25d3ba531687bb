import pytest
import torch

from nysact.experiments.config.data import ImageData
from nysact.experiments.data.augmentation import AugmentedImages, OnPixels
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.data.loaders import Share, StandardLoader

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
