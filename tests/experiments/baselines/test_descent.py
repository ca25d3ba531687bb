"""What holds for every optimizer: it descends, resumes exactly, and keeps the random stream."""

import copy

import pytest
import torch

from nysact.experiments.baselines import BASELINES, build, training_step
from tests.experiments.baselines.problems import logistic, network, quadratic

STEPS = 60
# Where the default learning rate, meant for networks, is wrong for the problem. A single linear
# layer is the first and the last, so that the baseline of Muon leaves it to AdamW.
RATES = {
    "adam": {"lr": 0.05},
    "adamw": {"lr": 0.05},
    "soap": {"lr": 0.05},
    "muon": {"adamw_lr": 0.05},
    "newton-muon": {"lr": 0.1},
    "nysmuon": {"lr": 0.1},
    "nysadamw": {"lr": 0.05},
}


def train(problem, name, steps=STEPS, **overrides):
    model, *batch = problem.batch()
    optimizer = build(name, model, **overrides)
    for _ in range(steps):
        training_step(model, optimizer, *batch)
    return optimizer


def without_decay(name):
    return {key: 0.0 for key in BASELINES[name].defaults if key.endswith("weight_decay")}


@pytest.mark.parametrize("name", BASELINES)
def test_descends_a_convex_quadratic(name):
    problem = quadratic()
    first = problem.loss()
    train(problem, name, **RATES.get(name, {}), **without_decay(name))
    assert problem.loss() < 0.5 * first


@pytest.mark.parametrize("name", BASELINES)
def test_descends_a_logistic_regression(name):
    problem = logistic()
    first = problem.loss()
    train(problem, name, **RATES.get(name, {}), **without_decay(name))
    assert problem.loss() < 0.7 * first


@pytest.mark.parametrize("name", BASELINES)
def test_trains_a_network_with_every_kind_of_layer(name):
    problem = network()
    first = problem.loss()
    train(problem, name, steps=20)
    assert problem.loss() < first


@pytest.mark.parametrize("name", BASELINES)
def test_resumes_exactly(name):
    whole, half = network(), network()
    train(whole, name, steps=12)
    optimizer = train(half, name, steps=7)
    saved = copy.deepcopy((half.model.state_dict(), optimizer.state_dict()))
    resumed = network(seed=1)
    resumed.inputs = half.inputs
    resumed.model.load_state_dict(saved[0])
    model, *batch = resumed.batch()
    optimizer = build(name, model)
    optimizer.load_state_dict(saved[1])
    for _ in range(5):
        training_step(model, optimizer, *batch)
    for expected, found in zip(whole.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("name", BASELINES)
def test_leaves_the_random_stream_alone(name):
    problem = network()
    before = torch.get_rng_state()
    train(problem, name, steps=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", BASELINES)
def test_schedule_reaches_the_learning_rate(name):
    problem = network()
    model, *batch = problem.batch()
    optimizer = build(name, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(list(model.parameters()))
    training_step(model, optimizer, *batch)
    schedule.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)
