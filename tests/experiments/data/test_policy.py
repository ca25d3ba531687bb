import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode

from nysact.experiments.data.augmentation import policy
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import seeded

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
