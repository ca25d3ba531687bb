"""A digest of a run's data, so that a run of other data is not taken for it."""

import hashlib
from collections.abc import Sequence

from torch import Tensor

from nysact.experiments.config.data import ImageData, Section, TextData
from nysact.experiments.data.text import load_text
from nysact.experiments.run.problem import load_images


def digest_of(data: Section) -> str | None:
    """Hash the bytes of text or of images in memory; ``None`` for pictures and data passed in."""
    parts: Sequence[Tensor]
    if isinstance(data, TextData):
        parts = load_text(data)
    elif isinstance(data, ImageData):
        whole = load_images(data)
        parts = [part for each in (whole.train, whole.test) for part in (each.images, each.labels)]
    else:
        return None
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()[:16]
