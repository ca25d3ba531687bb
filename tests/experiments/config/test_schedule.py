import math
from functools import partial

import pytest
import torch
from torch import nn

from nysact.experiments.config import Schedule


def factors(steps: int = 12, an_epoch: int = 3, **settings) -> list[float]:
    return [Schedule(**settings).factor(step, steps, an_epoch) for step in range(steps)]


def cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def test_cosine_falls_after_each_epoch_as_a_scheduler_stepped_each_epoch():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    expected = []
    for _ in range(4):
        expected += [optimizer.param_groups[0]["lr"]] * 3
        optimizer.step()
        reference.step()
    assert factors() == pytest.approx(expected)


def test_cosine_falls_after_each_step():
    assert factors(every="step") == pytest.approx([cosine(step / 12) for step in range(12)])


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 2}, {"warmup_steps": 6}])
def test_warm_up_rises_each_step_and_the_cosine_takes_what_is_left(warmup):
    found = factors(every="step", **warmup)
    assert found[:6] == pytest.approx([step / 7 for step in range(1, 7)])
    assert found[6:] == pytest.approx([cosine(step / 6) for step in range(6)])
    by_epoch = factors(every="epoch", **warmup)
    assert by_epoch[6:] == pytest.approx([cosine(0)] * 3 + [cosine(1 / 2)] * 3)


def test_constant_is_constant():
    assert factors(name="constant") == [1.0] * 12


def test_after_the_last_step_the_cosine_is_at_zero():
    assert Schedule().factor(12, 12, 3) == pytest.approx(0, abs=1e-15)
    assert Schedule(warmup_steps=20).factor(25, 12, 3) == pytest.approx(0, abs=1e-15)


def test_scheduler_sets_the_rates_of_all_groups():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(
        [{"params": [p], "lr": lr} for p, lr in zip(model.parameters(), (1, 2), strict=True)]
    )
    factor = partial(Schedule(every="step").factor, steps=4, steps_an_epoch=2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([cosine(1 / 4), 2 * cosine(1 / 4)])
