import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from nysact import NysAct
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.demo.comparison import Entry, Plan, compare, start_runs
from nysact.experiments.demo.contenders import CONTENDERS, Contender
from nysact.experiments.models import digits_network
from nysact.experiments.randomness import seeded_model
from nysact.experiments.spread import mean_and_spread
from nysact.experiments.state_size import state_bytes


def random_set(n: int) -> ImageSet:
    generator = torch.Generator().manual_seed(n)
    images = torch.randn(n, 1, 8, 8, generator=generator)
    return ImageSet(images, torch.arange(n) % 10)


DATA = Data(random_set(40), random_set(20), flip=False)


def plan(entries=None, seeds=(0, 1)) -> Plan:
    entries = entries or [Entry(contender, 0.01) for contender in CONTENDERS]
    return Plan(entries, digits_network, epochs=2, batch_size=8, seeds=seeds)


def stepped(optimizer, model):
    model(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    return optimizer


def test_state_bytes_of_sgd_and_adamw():
    model = nn.Linear(5, 3)  # 18 parameters of 4 bytes
    assert state_bytes(SGD(model.parameters(), lr=0.1)) == 0
    assert state_bytes(stepped(SGD(model.parameters(), lr=0.1, momentum=0.9), model)) == 18 * 4
    # AdamW also keeps a step count of 4 bytes for each of the two parameters.
    assert state_bytes(stepped(AdamW(model.parameters()), model)) == 2 * 18 * 4 + 2 * 4


def test_state_bytes_finds_nested_tensors_and_counts_views_each():
    model = nn.Linear(5, 3)
    optimizer = SGD(model.parameters(), lr=0.1)
    shared = torch.zeros(100, dtype=torch.float64)
    optimizer.state[model.weight] = {"a": shared[:10], "b": [shared[10:15], {"c": shared[15:16]}]}
    optimizer.state[model.bias] = {"step": 3, "name": "x"}
    assert state_bytes(optimizer) == 16 * 8


def test_state_bytes_of_nysact_hold_momentum_and_no_dense_matrix():
    model = nn.Linear(200, 3)
    optimizer = NysAct(model, rank=4, momentum=0.9)
    for _ in range(3):
        model(torch.randn(8, 200)).sum().backward()
        optimizer.step()
    size = state_bytes(optimizer)
    assert 603 * 4 < size < 200 * 200


def test_model_depends_on_the_seed_and_leaves_the_global_stream_alone():
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, again, other = (seeded_model(digits_network, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_runs_of_a_seed_start_from_equal_weights_of_their_own():
    runs = start_runs(plan(), DATA, seed=4)
    weights = [list(run.model.parameters()) for run in runs]
    for others in weights[1:]:
        for mine, theirs in zip(weights[0], others, strict=True):
            assert torch.equal(mine, theirs)
            assert mine.data_ptr() != theirs.data_ptr()


def test_every_optimizer_lowers_the_training_loss_on_every_seed():
    summaries = compare(plan(), DATA)
    assert [summary.name for summary in summaries] == ["SGD", "AdamW", "NysAct"]
    for summary in summaries:
        assert len(summary.losses) == len(summary.accuracies) == 2
        for losses in summary.losses:
            assert len(losses) == 2
            assert losses[1] < losses[0]


def test_two_comparisons_are_equal_bit_for_bit():
    first, second = compare(plan(), DATA), compare(plan(), DATA)
    for a, b in zip(first, second, strict=True):
        assert a.losses == b.losses
        assert a.accuracies == b.accuracies
        assert a.losses[0] != a.losses[1], "the seed changes nothing"


def test_progress_is_reported_after_every_epoch():
    seen, steps = [], []
    compare(
        plan(),
        DATA,
        on_step=lambda: steps.append(1),
        on_epoch=lambda p: seen.append((p.seed, p.epoch, len(p.runs[0].losses))),
    )
    assert seen == [(0, 1, 1), (0, 2, 2), (1, 1, 1), (1, 2, 2)]
    assert len(steps) == 2 * 2 * 5


def test_first_entry_is_the_reference_for_time():
    sgd = Contender("SGD", "", lambda model, lr: SGD(model.parameters(), lr=lr))
    (summary,) = compare(plan([Entry(sgd, 0.01)], seeds=[0]), DATA)
    assert summary.relative_time == 1
    assert summary.learning_rate == 0.01


def test_mean_and_spread():
    assert mean_and_spread([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert mean_and_spread([5.0]) == (5.0, 0.0)
