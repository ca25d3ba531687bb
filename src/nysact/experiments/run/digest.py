"""A digest of a run's data, so that a run of other data is not taken for it."""

import hashlib
from collections.abc import Sequence

from torch import Tensor

from nysact.experiments.config.data import ImageData, Section, TextData
from nysact.experiments.data.text import load_text
from nysact.experiments.run.problem import load_images


def digest_of(data: Section) -> str | None:
    """Sum up the content of data that a configuration names but does not determine.

    Args:
        data: The section of the configuration.

    Returns:
        A hash of the bytes of text or of the images that are kept on the device; ``None`` for a
        folder of pictures, too many to be read, and for data handed over, which has a fingerprint.
    """
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
