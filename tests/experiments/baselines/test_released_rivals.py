"""The released FOOF, K-FAC and Eva, each against a dense formula over several steps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact.experiments.baselines import build, training_step
from tests.experiments.baselines.problems import close

LR, DECAY, DAMPING, WEIGHT_DECAY, CLIP = 0.05, 0.8, 0.3, 0.2, 1e-3
SETTINGS = {"lr": LR, "momentum": 0.0, "weight_decay": WEIGHT_DECAY, "damping": DAMPING}


def eye(n):
    return torch.eye(n, dtype=torch.float64)


class Layer:
    """A convolution, whose inputs, outputs' gradients and gradient are written out as matrices."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Conv2d(2, 3, 2).double()

    def batch(self):
        """Draw a batch of 20; give it with its rows (n, positions, d)."""
        inputs = torch.randn(20, 2, 3, 3).double()
        rows = F.pad(F.unfold(inputs, 2).transpose(1, 2), (0, 1), value=1.0)
        return inputs, rows

    def loss(self, outputs, targets):
        return outputs.tanh().square().sum((1, 2, 3)).mean()

    def gradients(self, inputs):
        """The gradients of the outputs (n, positions, out) and of the weights (out, d)."""
        # Without the module's hooks.
        outputs = F.conv2d(inputs, self.module.weight, self.module.bias)
        loss = self.loss(outputs, None)
        sides = [outputs, self.module.weight, self.module.bias]
        output, weight, bias = torch.autograd.grad(loss, sides)
        return output.flatten(2).transpose(1, 2), torch.cat([weight.flatten(1), bias[:, None]], 1)

    def weights(self):
        return torch.cat([self.module.weight.flatten(1), self.module.bias[:, None]], 1).detach()


def moves(name, steps, **settings):
    """Train; give for each step the rows, the gradients and what the weights moved by."""
    layer = Layer()
    optimizer = build(name, layer.module, **SETTINGS, **settings)
    for _ in range(steps):
        inputs, rows = layer.batch()
        outputs, gradient = layer.gradients(inputs)
        before = layer.weights()
        training_step(layer.module, optimizer, layer.loss, inputs, None)
        yield rows, outputs, gradient, before, (before - layer.weights()) / LR


def covariance(rows):
    rows = rows.flatten(0, 1)
    return rows.T @ rows / len(rows)


def clipped(direction, gradient, lr):
    scale = min(1.0, (CLIP / (lr**2 * float((direction * gradient).sum()))) ** 0.5)
    return scale * direction


def test_foof_averages_from_the_identity_and_starts_as_sgd():
    average, inverse = eye(9), None
    found = moves("released-foof", 5, stat_decay=DECAY, cov_interval=1, inv_interval=2)
    for step, (rows, _, gradient, weight, move) in enumerate(found):
        average = DECAY * average + (1 - DECAY) * covariance(rows)
        if step % 2 == 0:
            damped = average / (1 - DECAY ** (step + 1)) + DAMPING * eye(9)
            inverse = eye(9) if inverse is None else torch.linalg.inv(damped)
        assert close(move, gradient @ inverse + WEIGHT_DECAY * weight)


def test_foofs_correction_for_bias_counts_every_layer():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 1, bias=False)).double()
    settings = {"stat_decay": DECAY, "cov_interval": 1, "inv_interval": 1, "damping": DAMPING}
    optimizer = build("released-foof", model, **settings)
    average = eye(3)
    for _ in range(3):
        inputs = torch.randn(7, 3).double()
        average = DECAY * average + (1 - DECAY) * inputs.T @ inputs / 7
        training_step(model, optimizer, F.mse_loss, inputs, torch.zeros(7, 1).double())
    damped = average / (1 - DECAY**6) + DAMPING * eye(3)
    assert close(optimizer.state[model[0].weight]["inverse"], torch.linalg.inv(damped))


def test_kfac_averages_from_the_identity_and_decays_weights_late():
    inputs_factor, outputs_factor = eye(9), eye(3)
    settings = {"stat_decay": DECAY, "kl_clip": CLIP, "cov_interval": 1, "inv_interval": 1}
    for step, (rows, outputs, gradient, weight, move) in enumerate(
        moves("released-kfac", 22, **settings)
    ):
        inputs_factor = DECAY * inputs_factor + (1 - DECAY) * covariance(rows)
        outputs_factor = DECAY * outputs_factor + (1 - DECAY) * covariance(outputs)
        # vec(G X A) = (G kron A) vec(X), row by row.
        fisher = torch.kron(outputs_factor, inputs_factor) + DAMPING * eye(27)
        direction = torch.linalg.solve(fisher, gradient.flatten()).view(3, 9)
        decay = WEIGHT_DECAY if step >= 20 else 0.0
        assert close(move, clipped(direction, gradient, LR) + decay * weight)


def test_evas_means_over_16_samples_act_at_once():
    a = g = None
    settings = {"stat_decay": 0.05, "kl_clip": CLIP, "cov_interval": 2, "inv_interval": 2}
    for step, (rows, outputs, gradient, weight, move) in enumerate(
        moves("released-eva", 5, **settings)
    ):
        if step % 2 == 0:
            means = [part[:16].mean((0, 1)) for part in (rows, outputs)]
            a, g = means if a is None else (0.05 * a + 0.95 * means[0], 0.05 * g + 0.95 * means[1])
        fisher = torch.outer(torch.kron(g, a), torch.kron(g, a)) + DAMPING * eye(27)
        direction = torch.linalg.solve(fisher, gradient.flatten()).view(3, 9)
        assert close(move, clipped(direction, gradient, 0.1) + WEIGHT_DECAY * weight)


@pytest.mark.parametrize("name", ["released-kfac", "released-eva"])
def test_damping_swamps_the_output_factor_so_that_the_direction_is_the_gradients(name):
    settings = {"kl_clip": CLIP, "stat_decay": 0.05, "cov_interval": 1, "inv_interval": 1}
    *_, (_, _, gradient, weight, move) = moves(name, 5, **settings)
    direction = move - WEIGHT_DECAY * weight * (name == "released-eva")
    assert F.cosine_similarity(direction.flatten(), gradient.flatten(), dim=0) > 0.999
