"""The models of the experiments, by name and one by one."""

from nysact.experiments.models.networks import CifarResNet, digits_network, lenet5
from nysact.experiments.models.registry import MODELS, Model, build_model, find_model

__all__ = [
    "MODELS",
    "CifarResNet",
    "Model",
    "build_model",
    "digits_network",
    "find_model",
    "lenet5",
]
