"""Mixup and CutMix: each picture of a batch is mixed with another one of the same batch."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from nysact.experiments.data.loaders import Batch, DeviceLoader, Share, StandardLoader
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import mixed, seeded


class MixingLoader:
    """Mixes the pictures of each batch, by mixup or by CutMix.

    Each picture is mixed with the one that lies half a batch from it. Repeats of a picture lie side
    by side, so these are two pictures; and they are in the same process's share, so that a batch
    comes out the same whatever the number of processes that share it.

    Args:
        loader: Gives the batches.
        mixup: Parameter alpha of mixup, 0 for none.
        cutmix: Parameter alpha of CutMix, 0 for none; with mixup, each gets half of the batches.
        classes: Number of classes.
        seed: Seed of the mixing.
        share: Which process this is.

    Raises:
        ExperimentError: If a batch has no such pairs.
    """

    def __init__(
        self,
        loader: StandardLoader | DeviceLoader,
        mixup: float,
        cutmix: float,
        classes: int,
        seed: int,
        share: Share,
    ) -> None:
        from torchvision.transforms import v2

        check_pairs(loader.batch_size, loader.repeats, share)
        kinds = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self.mix = v2.RandomChoice([kind(alpha=alpha) for kind, alpha in kinds if alpha])
        self.loader = loader
        self.classes = classes
        self.seed = seed

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Go through an epoch from one of its batches on.

        Args:
            number: The epoch, from 0.
            start: The first batch, from 0.

        Yields:
            Pictures, and the share of each class in them.
        """
        for batch, (images, labels) in enumerate(self.loader.epoch(number, start), start):
            # All processes draw the same: how a batch is mixed is no matter of who has which share.
            with seeded(mixed(self.seed, "mix", number, batch)):
                pair = self._mixed(images, labels)
            yield pair

    def _mixed(self, images: Tensor, labels: Tensor) -> Batch:
        """Mix each picture with the one half a batch from it."""
        shares = F.one_hot(labels, self.classes).float()
        # torchvision mixes neighbours: of two samples, each with the other. Here these are the two
        # halves of the batch, each taken for a picture of many channels.
        halves = images.reshape(2, -1, *images.shape[2:]), shares.reshape(2, -1)
        mixed_images, mixed_shares = self.mix(*halves)
        return mixed_images.view_as(images), mixed_shares.view_as(shares)


def check_pairs(batch_size: int, repeats: int, share: Share) -> None:
    """Make sure that each picture of a batch has another to be mixed with.

    Args:
        batch_size: Samples a batch, over all processes.
        repeats: How often a picture comes one after the other.
        share: Which process this is.

    Raises:
        ExperimentError: If the halves of a share differ in size, or half a batch is not far enough.
    """
    if batch_size % (2 * share.count):
        raise ExperimentError(
            f"batch_size={batch_size}: mixup and CutMix pair the two halves of each process's "
            f"share; expected a multiple of {2 * share.count}, twice the number of processes"
        )
    if batch_size < 2 * repeats:
        raise ExperimentError(
            f"batch_size={batch_size}: with data.repeats={repeats} mixup and CutMix would mix "
            f"pictures with themselves; expected at least {2 * repeats}"
        )
