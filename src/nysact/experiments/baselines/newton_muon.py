"""Newton-Muon: Muon on gradients multiplied by the exact inverse covariance."""

from nysact import FOOF
from nysact.optim.family import FOOFOptions
from nysact.optim.settings import MuonOptions


class NewtonMuonOptions(FOOFOptions, MuonOptions, total=False):
    """Options of :class:`NewtonMuon`."""


class NewtonMuon(
    FOOF,
    options=NewtonMuonOptions,
    defaults={
        "update": "muon",
        "lr": 0.02,
        "momentum": 0.95,
        "nesterov": True,
        "weight_decay": 0.0,
        "damping": 0.2,
        "damping_scale": "trace",
    },
):
    """Muon on gradients multiplied by ``(A + damping tr(A)/d I)^-1``, AdamW on the rest.

    From Du and Su, arXiv 2604.01472: what :class:`nysact.NysMuon` approximates at rank r, with
    the same parameters given to Muon.
    """
