"""Mixup and CutMix: each picture of a batch is mixed with another one of the same batch."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from nysact.experiments.data.loaders import Batch, DeviceLoader, Share, StandardLoader
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import mixed, seeded


class MixingLoader:
    """Mixes the pictures of each batch, by mixup or by CutMix, each with its parameter alpha.

    Each picture is mixed with the one that lies half a batch away. Repeats of a picture lie side
    by side, so these are two pictures; and they are in the same process's share, so that a batch
    is the same whatever the number of processes that share it.
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
        self.loader, self.classes, self.seed = loader, classes, seed

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Give pictures and the share of each class in them, from batch ``start`` on."""
        for batch, (images, labels) in enumerate(self.loader.epoch(number, start), start):
            # All processes draw the same, so that how a batch is mixed depends on none of them.
            with seeded(mixed(self.seed, "mix", number, batch)):
                pair = self._mixed(images, labels)
            yield pair

    def _mixed(self, images: Tensor, labels: Tensor) -> Batch:
        shares = F.one_hot(labels, self.classes).float()
        # torchvision mixes neighbours: of two samples, each with the other. Here these are the two
        # halves of the batch, each taken for a picture of many channels.
        halves = images.reshape(2, -1, *images.shape[2:]), shares.reshape(2, -1)
        mixed_images, mixed_shares = self.mix(*halves)
        return mixed_images.view_as(images), mixed_shares.view_as(shares)


def check_pairs(batch_size: int, repeats: int, share: Share) -> None:
    """Make sure that each picture of a batch has another one to be mixed with."""
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
