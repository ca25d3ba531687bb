"""Parameter updates that take preconditioned gradients, one file each."""

from nysact.updates.clipping import clip_step
from nysact.updates.sgd import MOMENTUM, momentum_buffers, sgd_update

__all__ = ["MOMENTUM", "clip_step", "momentum_buffers", "sgd_update"]
