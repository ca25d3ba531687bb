"""A multilayer perceptron of any width."""

from itertools import pairwise

from torch import nn


def mlp(in_features: int = 784, width: int = 2048, depth: int = 3, classes: int = 10) -> nn.Module:
    """Make a multilayer perceptron with ReLU.

    Args:
        in_features: Numbers in a sample; samples of any shape are flattened.
        width: Features of each hidden layer.
        depth: Linear layers, at least 1.
        classes: Number of classes.

    Returns:
        The network.
    """
    sizes = [in_features, *[width] * (depth - 1), classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
