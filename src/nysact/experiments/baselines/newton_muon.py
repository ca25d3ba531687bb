"""Newton-Muon: Muon on gradients multiplied by the exact inverse covariance."""

from nysact import FOOF
from nysact.optim.family import FOOFOptions
from nysact.optim.nysmuon import MUON_DEFAULTS
from nysact.optim.settings import MuonOptions


class NewtonMuonOptions(FOOFOptions, MuonOptions, total=False):
    """Options of :class:`NewtonMuon`."""


class NewtonMuon(FOOF, options=NewtonMuonOptions, defaults={**MUON_DEFAULTS, "damping": 0.2}):
    """Muon on gradients multiplied by ``(A + damping tr(A)/d I)^-1``, AdamW on the rest.

    From Du and Su, arXiv 2604.01472: what :class:`nysact.NysMuon` approximates at rank r, with
    the same parameters given to Muon.
    """
