"""K-FAC is the dense formula, and the Fisher matrix where a Kronecker product can be it."""

import math

import pytest
import torch
from torch import nn

from nysact import KFAC

from ...oracles import error, randn
from .dense import LAYERS, PLAIN, joint, step_of, two_sided, value


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("damping", [0.03, 1.0])
def test_the_update_is_the_dense_two_sided_formula(name, damping):
    observed, product, _ = step_of(KFAC, name, damping=damping, kl_clip=None, subsample=1)
    expected = two_sided(
        observed.gradient, observed.input_covariance(), observed.output_covariance(), damping
    )
    assert error(product, expected) < 1e-10


def test_a_deep_linear_network_on_one_sample_gets_its_exact_natural_gradient():
    """With one sample the empirical Fisher block of a layer is one Kronecker product."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in [(4, 3), (3, 5), (5, 2)]))
    model = model.double()
    damping = 0.1
    optimizer = KFAC(model, **PLAIN, damping=damping, kl_clip=None)
    inputs, targets = randn(1, 4), randn(1, 2, seed=1)
    (0.5 * (model(inputs) - targets).square().sum()).backward()
    layers = list(model)
    before = [value(layer.weight) for layer in layers]
    gradients = [value(layer.weight.grad) for layer in layers]
    activations = [inputs]
    with torch.no_grad():
        for layer in layers:
            activations.append(layer(activations[-1]))
    optimizer.step()
    for layer, old, gradient, row in zip(layers, before, gradients, activations, strict=False):
        fisher = torch.outer(gradient.flatten(), gradient.flatten())
        # The damped factors multiply out to the Fisher matrix and the damping's cross terms.
        length = row.square().sum()
        output = gradient @ row.T / length
        a, b = row.T @ row, output @ output.T
        assert error(torch.kron(b, a), fisher) < 1e-10
        pi = math.sqrt((a.trace() / len(a)) / (b.trace() / len(b)))
        eye_a, eye_b = torch.eye(len(a)).to(a), torch.eye(len(b)).to(b)
        damped = torch.kron(
            b + math.sqrt(damping) / pi * eye_b, a + math.sqrt(damping) * pi * eye_a
        )
        step = torch.linalg.solve(damped, gradient.flatten()).view_as(gradient)
        assert error((old - layer.weight.detach()) / PLAIN["lr"], step) < 1e-9


@pytest.mark.parametrize("bound", [1e-3, 1e3])
def test_clipping_bounds_the_step_in_the_fisher_metric(bound):
    observed, free, _ = step_of(KFAC, "conv", kl_clip=None)
    _, clipped, _ = step_of(KFAC, "conv", kl_clip=bound)
    length = PLAIN["lr"] ** 2 * (free * observed.gradient).sum()
    assert error(clipped, free * min(1.0, math.sqrt(bound / length))) < 1e-10


def test_a_scaled_loss_changes_nothing_when_its_scale_is_known():
    ends = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        optimizer = KFAC(model, **PLAIN, loss_scale=lambda scale=scale: scale)
        (model(randn(5, 4)).square().mean() * scale).backward()
        for parameter in model.parameters():
            parameter.grad /= scale
        optimizer.step()
        ends.append(torch.cat([joint(layer, value).flatten() for layer in (model[0], model[2])]))
    assert error(*ends) < 1e-12
