"""The models of the experiments, by name and one by one."""

from nysact.experiments.models.densenet import cifar_densenet121
from nysact.experiments.models.digits import digits_network
from nysact.experiments.models.lenet import lenet5
from nysact.experiments.models.registry import (
    MODELS,
    Model,
    build_model,
    find_model,
    loss_function,
)
from nysact.experiments.models.resnet import BasicBlock, CifarResNet

__all__ = [
    "MODELS",
    "BasicBlock",
    "CifarResNet",
    "Model",
    "build_model",
    "cifar_densenet121",
    "digits_network",
    "find_model",
    "lenet5",
    "loss_function",
]
