"""GGT and M-FAC against their dense definitions, over all parameters together."""

import pytest
import torch

from nysact.experiments.baselines.window import GGT, MFAC
from tests.experiments.baselines.problems import close, flat, gradients, network


def collect(optimizer, problem, steps):
    """Take steps; give the gradients seen, with the decay added, and the last two iterates."""
    seen = []
    for _ in range(steps):
        params = list(problem.model.parameters())
        before = flat(params)
        decay = optimizer.param_groups[0]["weight_decay"]
        for param, gradient in zip(params, gradients(problem), strict=True):
            param.grad = gradient
        seen.append(flat([p.grad for p in params]) + decay * before)
        optimizer.step()
    return seen, before, flat(params)


def inverse_root(matrix, eps):
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors / (eigenvalues.clamp(min=0).sqrt() + eps)) @ vectors.T


@pytest.mark.parametrize("steps", [1, 3, 9])
@pytest.mark.parametrize("beta2", [1.0, 0.7])
def test_ggt_is_the_inverse_root_of_the_window(steps, beta2):
    problem = network()
    optimizer = GGT(
        problem.model.parameters(), 0.01, momentum=0, window=4, beta2=beta2, eps=0.02,
        weight_decay=0.1,
    )  # fmt: skip
    seen, before, after = collect(optimizer, problem, steps)
    window = [beta2**age * g for age, g in enumerate(reversed(seen[-4:]))]
    G = torch.stack(window, dim=1)
    direction = inverse_root(G @ G.T, 0.02) @ seen[-1]
    assert close((before - after) / 0.01, direction, 1e-6)


def test_ggt_adds_momentum_to_the_preconditioned_gradient():
    problem = network()
    optimizer = GGT(
        problem.model.parameters(), 0.01, momentum=0.8, weight_decay=0.0, window=3, eps=0.02
    )
    seen, before, after = collect(optimizer, problem, 2)
    G = torch.stack(seen, dim=1)
    first = seen[0] / (seen[0].norm() + 0.02)
    second = inverse_root(G @ G.T, 0.02) @ seen[1]
    assert close((before - after) / 0.01, 0.8 * first + second, 1e-6)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_mfac_is_the_inverse_of_the_damped_empirical_fisher(steps):
    problem = network()
    optimizer = MFAC(
        problem.model.parameters(), 1e-3, momentum=0, window=4, damping=0.01, weight_decay=0.1
    )
    seen, before, after = collect(optimizer, problem, steps)
    # Four gradients count from the start, as zeros at first.
    G = torch.stack(seen[-4:], dim=1)
    fisher = 0.01 * torch.eye(len(G)).double() + G @ G.T / 4
    assert close((before - after) / 1e-3, torch.linalg.solve(fisher, seen[-1]))


def test_mfac_averages_the_preconditioned_gradients():
    problem = network()
    optimizer = MFAC(
        problem.model.parameters(), 1e-3, momentum=0.8, weight_decay=0.0, window=4, damping=0.01
    )
    seen, before, after = collect(optimizer, problem, 2)
    directions = []
    for count in (1, 2):
        G = torch.stack(seen[:count], dim=1)
        fisher = 0.01 * torch.eye(len(G)).double() + G @ G.T / 4
        directions.append(torch.linalg.solve(fisher, seen[count - 1]))
    expected = 0.8 * 0.2 * directions[0] + 0.2 * directions[1]
    assert close((before - after) / 1e-3, expected)


def test_window_spans_all_groups():
    problem = network()
    params = list(problem.model.parameters())
    optimizer = MFAC(
        [{"params": params[:3]}, {"params": params[3:], "lr": 2e-3}],
        1e-3, momentum=0, weight_decay=0.0, window=2, damping=0.01,
    )  # fmt: skip
    seen, before, after = collect(optimizer, problem, 2)
    G = torch.stack(seen, dim=1)
    fisher = 0.01 * torch.eye(len(G)).double() + G @ G.T / 2
    first = sum(p.numel() for p in params[:3])
    rates = torch.full_like(before, 2e-3)
    rates[:first] = 1e-3
    assert close((before - after) / rates, torch.linalg.solve(fisher, seen[-1]))


def test_parameter_without_gradient_stays():
    problem = network()
    params = list(problem.model.parameters())
    optimizer = GGT(params, 0.01)
    for param, gradient in list(zip(params, gradients(problem), strict=True))[1:]:
        param.grad = gradient
    before = params[0].clone()
    optimizer.step()
    assert torch.equal(params[0], before)


@pytest.mark.parametrize("settings", [{"window": 0}, {"eps": 0.0}])
def test_ggt_refuses_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GGT(network().model.parameters(), **settings)


@pytest.mark.parametrize("settings", [{"window": 0}, {"damping": 0.0}])
def test_mfac_refuses_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        MFAC(network().model.parameters(), **settings)
