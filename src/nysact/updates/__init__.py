"""Parameter updates that take preconditioned gradients, one file each."""

from nysact.updates.adamw import adamw_update
from nysact.updates.clipping import clip_step
from nysact.updates.gradients import init_buffers
from nysact.updates.layout import MatrixLayout
from nysact.updates.muon import muon_update
from nysact.updates.sgd import sgd_update

UPDATES = ("sgd", "adamw", "muon")
# Tensors of the shape of a parameter that any update keeps.
BUFFERS = ("momentum_buffer", "exp_avg", "exp_avg_sq")

__all__ = [
    "BUFFERS",
    "UPDATES",
    "MatrixLayout",
    "adamw_update",
    "clip_step",
    "init_buffers",
    "muon_update",
    "sgd_update",
]
