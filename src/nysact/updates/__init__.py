"""Parameter updates that take preconditioned gradients, one file each."""

from nysact.updates.adamw import adamw_update as adamw_update
from nysact.updates.clipping import clip_step as clip_step
from nysact.updates.gradients import BUFFERS as BUFFERS
from nysact.updates.gradients import init_buffers as init_buffers
from nysact.updates.layout import MatrixLayout as MatrixLayout
from nysact.updates.muon import muon_update as muon_update
from nysact.updates.sgd import sgd_update as sgd_update
