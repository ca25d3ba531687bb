"""Compare two optimizers on your own model and data."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from nysact.experiments import compare

pixels, digits = map(torch.from_numpy, load_digits(return_X_y=True))
train_set = TensorDataset(pixels[:1400].float() / 16, digits[:1400])
test_set = TensorDataset(pixels[1400:].float() / 16, digits[1400:])


def model() -> nn.Module:
    """Make a network of one hidden layer."""
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


print(compare(model, train_set, test_set, ["sgd", "nysact"], epochs=5, batch_size=50, seeds=[0, 1]))
