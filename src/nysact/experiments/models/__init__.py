"""The models of the experiments, by name and one by one."""

from nysact.experiments.models.registry import MODELS, Model, build_model, find_model
from nysact.experiments.models.resnet import CifarResNet
from nysact.experiments.models.small import digits_network, lenet5

__all__ = [
    "MODELS",
    "CifarResNet",
    "Model",
    "build_model",
    "digits_network",
    "find_model",
    "lenet5",
]
