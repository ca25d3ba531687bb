import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.demo.train import (
    EVALUATION_BATCH,
    Run,
    accuracy,
    cosine_schedule,
    train_in_turns,
    training_step,
)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def random_set(n: int) -> ImageSet:
    generator = torch.Generator().manual_seed(n)
    images = torch.randn(n, 1, 2, 2, generator=generator)
    return ImageSet(images, torch.randint(3, (n,), generator=generator))


DATA = Data(random_set(20), random_set(10), flip=True)


def test_step_is_gradient_descent_on_the_cross_entropy():
    model, data = linear(), random_set(8)
    before = model[1].weight.detach().clone()
    expected = F.cross_entropy(model(data.images), data.labels)
    (gradient,) = torch.autograd.grad(expected, [model[1].weight], retain_graph=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over, to be cleared
    loss = training_step(model, sgd(model), data.images, data.labels)
    assert loss == expected
    assert torch.allclose(model[1].weight, before - 0.1 * gradient)


def test_accuracy_counts_every_sample_once_and_restores_training_mode():
    class Constant(nn.Module):
        def forward(self, x):
            assert not self.training
            return F.one_hot(torch.ones(len(x), dtype=torch.long), 3).float()

    n = 2 * EVALUATION_BATCH + 100
    labels = (torch.arange(n) < EVALUATION_BATCH + 50).long()
    model = Constant()
    percentage = accuracy(model, ImageSet(torch.zeros(n, 1, 2, 2), labels))
    assert percentage == pytest.approx(100 * (EVALUATION_BATCH + 50) / n)
    assert model.training


def test_learning_rate_follows_half_a_cosine_down_to_zero():
    optimizer = sgd(linear(), lr=0.4)
    schedule = cosine_schedule(optimizer, steps=8)
    rates = []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [0.2 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    assert rates == pytest.approx(expected)
    assert rates[0] == 0.4
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def run(name: str, steps: int, seed: int = 0) -> Run:
    model = linear(seed)
    return Run(name, model, sgd(model), steps)


def test_runs_take_turns_on_the_same_batches(monkeypatch):
    calls: list[tuple[str, list[int]]] = []
    original = Run.step

    def spy(self, images, labels):
        calls.append((self.name, images.flatten().tolist()))
        original(self, images, labels)

    monkeypatch.setattr(Run, "step", spy)
    runs = [run("a", 10), run("b", 10)]
    list(train_in_turns(runs, DATA, epochs=2, batch_size=4, seed=0))
    assert len(calls) == 2 * 2 * 5
    for first, second in zip(calls[::2], calls[1::2], strict=True):
        assert {first[0], second[0]} == {"a", "b"}
        assert first[1] == second[1]
    assert {name for name, _ in calls[::2]} == {"a", "b"}, "one of them is always first"


def test_equal_runs_stay_equal_and_company_changes_nothing():
    alone, first, second = run("alone", 10), run("first", 10), run("second", 10)
    list(train_in_turns([alone], DATA, 2, 4, seed=3))
    list(train_in_turns([first, second], DATA, 2, 4, seed=3))
    assert alone.losses == first.losses == second.losses
    assert alone.accuracies == first.accuracies == second.accuracies


def test_record_has_an_entry_for_each_epoch_and_each_step():
    trained, steps = run("a", 10), []
    epochs = list(train_in_turns([trained], DATA, 2, 4, 0, on_step=lambda: steps.append(1)))
    assert epochs == [1, 2]
    assert len(trained.losses) == len(trained.accuracies) == 2
    assert len(trained.seconds) == len(steps) == 10
    assert trained.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_epoch_loss_is_the_mean_over_its_batches_only():
    trained = run("a", 10)
    batch_losses: list[float] = []

    def note() -> None:
        batch_losses.append(float(trained._epoch_losses[-1]))

    list(train_in_turns([trained], DATA, 2, 4, 0, on_step=note))
    means = [sum(batch_losses[:5]) / 5, sum(batch_losses[5:]) / 5]
    assert trained.losses == pytest.approx(means)


def test_seed_decides_the_order_of_the_samples():
    runs = [run("a", 10) for _ in range(3)]
    for trained, seed in zip(runs, (0, 0, 1), strict=True):
        list(train_in_turns([trained], DATA, 2, 4, seed))
    assert runs[0].losses == runs[1].losses != runs[2].losses
