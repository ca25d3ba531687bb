from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from nysact.experiments.baselines import training_step
from nysact.experiments.losses import cross_entropy


def test_step_is_gradient_descent_on_the_cross_entropy():
    torch.manual_seed(0)
    model, inputs, labels = nn.Linear(4, 3), torch.randn(8, 4), torch.arange(8) % 3
    before = model.weight.detach().clone()
    expected = F.cross_entropy(model(inputs), labels)
    (gradient,) = torch.autograd.grad(expected, [model.weight], retain_graph=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over, to be cleared
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = training_step(model, optimizer, cross_entropy(), inputs, labels)
    assert loss == expected
    assert torch.allclose(model.weight, before - 0.1 * gradient)


def test_cross_entropy_of_class_numbers_shares_and_smoothed_targets():
    scores, labels = torch.randn(6, 5), torch.tensor([0, 4, 1, 1, 2, 3])
    assert cross_entropy()(scores, labels) == F.cross_entropy(scores, labels)
    smoothed = cross_entropy(0.1)(scores, labels)
    assert smoothed == F.cross_entropy(scores, labels, label_smoothing=0.1)
    shares = torch.rand(6, 5).softmax(-1)
    assert cross_entropy()(scores, shares) == F.cross_entropy(scores, shares)
    by_hand = -(shares * 0.9 + 0.1 / 5) * scores.log_softmax(-1)
    assert torch.allclose(cross_entropy(0.1)(scores, shares), by_hand.sum(-1).mean())


def test_cross_entropy_of_a_language_model_is_the_mean_over_all_tokens():
    scores, labels = torch.randn(2, 5, 3), torch.randint(3, (2, 5))
    flat = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    assert cross_entropy(0.1)(SimpleNamespace(logits=scores), labels) == flat
    assert cross_entropy(0.1)(scores, labels) == flat
