"""The deep autoencoder of Hinton and Salakhutdinov (2006), the classic of second-order methods."""

from itertools import pairwise

from torch import nn


def autoencoder(in_features: int = 784, code: int = 30) -> nn.Sequential:
    """Make layers of 1000, 500 and 250 units around a linear code; images are flattened."""
    encoder = [in_features, 1000, 500, 250, code]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in (*pairwise(encoder), *pairwise(encoder[::-1])):
        layers.append(nn.Linear(inputs, outputs))
        if outputs not in (code, in_features):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
