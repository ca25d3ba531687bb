"""The optimizers that users build."""

from nysact.optim.family import FOOF, KFAC, SKFAC, Eva
from nysact.optim.nysact import NysAct
from nysact.optim.preconditioner import Preconditioner

__all__ = ["FOOF", "KFAC", "SKFAC", "Eva", "NysAct", "Preconditioner"]
