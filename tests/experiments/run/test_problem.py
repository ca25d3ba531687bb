from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from nysact.experiments.data.loaders import DeviceBatches, Share
from nysact.experiments.run.problem import Problem, cross_entropy, evaluate

SCORES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 4, 1, 1, 2, 3])


def test_cross_entropy_of_class_numbers_shares_and_smoothed_targets():
    assert cross_entropy()(SCORES, LABELS) == F.cross_entropy(SCORES, LABELS)
    smoothed = cross_entropy(0.1)(SCORES, LABELS)
    assert smoothed == F.cross_entropy(SCORES, LABELS, label_smoothing=0.1)
    shares = F.one_hot(LABELS, 5).float()
    assert torch.allclose(cross_entropy()(SCORES, shares), F.cross_entropy(SCORES, LABELS))
    by_hand = -(shares * 0.9 + 0.1 / 5) * SCORES.log_softmax(-1)
    assert torch.allclose(cross_entropy(0.1)(SCORES, shares), by_hand.sum(-1).mean())


def test_cross_entropy_of_a_language_model_is_the_mean_over_all_tokens():
    outputs = SimpleNamespace(logits=SCORES.view(2, 3, 5))
    assert cross_entropy()(outputs, LABELS.view(2, 3)) == F.cross_entropy(SCORES, LABELS)


class Table(nn.Module):
    """Gives the scores of the sample whose number it reads."""

    def forward(self, numbers):
        assert not self.training
        assert not torch.is_grad_enabled()
        return SCORES[numbers]


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_every_sample_counts_once_whatever_the_batches(batch_size):
    model = Table()
    batches = DeviceBatches(torch.arange(6), LABELS, batch_size, Share())
    problem = Problem(train=None, test=batches, loss=cross_entropy())
    found = evaluate(model, problem, Accelerator(cpu=True))
    correct = (SCORES.argmax(1) == LABELS).sum() / 6 * 100
    assert found == pytest.approx(
        {"test_loss": float(F.cross_entropy(SCORES, LABELS)), "test_accuracy": float(correct)}
    )
    assert model.training
