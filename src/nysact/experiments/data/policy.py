"""Augmentation policies: random changes of shape and colour, of one picture at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from nysact.experiments.errors import ExperimentError


def policy(
    name: str, interpolation: Literal["bilinear", "bicubic"], side: int, grey: Sequence[int]
) -> Any:
    """Make ``"trivial-augment"`` or a policy in timm's notation, a function of a PIL picture."""
    # Imported here: only a policy needs them.
    from PIL import Image
    from torchvision.transforms import InterpolationMode, v2

    if name == "trivial-augment":
        return v2.TrivialAugmentWide(interpolation=InterpolationMode(interpolation))
    from timm.data.auto_augment import rand_augment_transform

    # Translations are relative to the side, the mean pixel fills new area, and without an
    # interpolation timm draws one for each picture.
    settings = {
        "translate_const": int(0.45 * side),
        "img_mean": tuple(grey) if len(grey) > 1 else grey[0],
        "interpolation": Image.Resampling[interpolation.upper()],
    }
    try:
        found = rand_augment_transform(name, settings)
    except (AssertionError, ValueError) as error:
        raise ExperimentError(
            f"data.augmentation={name!r}: expected trivial-augment, or timm's notation of a "
            "RandAugment, such as rand-m9-mstd0.5-inc1"
        ) from error
    for operation in found.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(bits_kept, operation.level_fn)
    return found


def bits_kept(bits_at: Callable[[float, Any], tuple[int]], magnitude: float, settings: Any) -> Any:
    """Keep one bit of a pixel at least; timm may say none, which is an error to Pillow."""
    return (max(1, bits_at(magnitude, settings)[0]),)
