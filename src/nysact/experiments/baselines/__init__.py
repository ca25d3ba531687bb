"""The optimizers that NysAct is compared with, behind one interface."""

from nysact.experiments.baselines.optimizer import Needs, needs_of, training_step
from nysact.experiments.baselines.registry import BASELINES, Baseline, build, find

__all__ = ["BASELINES", "Baseline", "Needs", "build", "find", "needs_of", "training_step"]
