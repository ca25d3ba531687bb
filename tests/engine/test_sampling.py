"""Which samples statistics are taken from: a part that serves in any order of the samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from nysact.engine.sampling import STARTS, spread

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import backward, exact, inverse_of, plain, same, state_of

SEEDS = 24


def mean_error(module, inputs):
    """Error of the inverse from sampled rows against that from all rows, a mean over seeds."""
    expected = damped_inverse(covariance(rows(module, inputs)), 0.1)
    errors = []
    for seed in range(SEEDS):
        optimizer = exact(module, subsample="auto", seed=seed)
        backward(module, inputs)
        optimizer.step()
        errors.append(error(inverse_of(optimizer, module), expected))
        optimizer.remove_hooks()
    return sum(errors) / SEEDS


def shuffled(inputs, dims):
    """Mix the entries of the first dimensions."""
    flat = inputs.flatten(0, dims - 1)
    order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))
    return flat[order].view_as(inputs)


@pytest.mark.parametrize("content_of", ["sequence", "position"])
@pytest.mark.parametrize("positions_first", [False, True])
def test_rows_of_sequences_serve_as_well_as_shuffled_rows(positions_first, content_of):
    content, noise = randn(64, 1, 8) * 2, randn(64, 64, 8, seed=1) / 2
    inputs = noise + (content if content_of == "sequence" else content.transpose(0, 1))
    inputs = inputs.transpose(0, 1).contiguous() if positions_first else inputs
    module = nn.Linear(8, 3).double()
    assert mean_error(module, inputs) < 1.2 * mean_error(module, shuffled(inputs, 2))


def clips(frames):
    """Video clips in one batch, frame after frame; each frame has content of its own."""
    content = 2 * randn(frames, 2, 1, 1, seed=2)
    return (randn(128 // frames, frames, 2, 16, 16) + content).flatten(0, 1)


def ramp(steps):
    """Images that grow brighter in a few steps."""
    brightness = 2 * (torch.arange(128) * steps // 128) / steps
    return randn(128, 2, 16, 16) + brightness[:, None, None, None]


ORDERED = {
    "clips of 4 frames": lambda: clips(4),
    "clips of 16 frames": lambda: clips(16),
    "clips of 32 frames": lambda: clips(32),
    "two halves": lambda: ramp(2),
    "sorted": lambda: ramp(128),
}


@pytest.mark.parametrize("order", ORDERED)
def test_ordered_images_serve_as_well_as_shuffled_ones(order):
    inputs = ORDERED[order]()
    module = nn.Conv2d(2, 3, 3, padding=1).double()
    assert mean_error(module, inputs) < 1.2 * mean_error(module, shuffled(inputs, 1))


# --- the choice ------------------------------------------------------------------------------


@given(st.integers(1, 60), st.data())
@hypothesis_settings(max_examples=30)
def test_over_all_starts_each_sample_is_taken_equally_often(total, data):
    count = data.draw(st.integers(1, total))
    starts = torch.arange(STARTS).unsqueeze(1)
    index = spread(total, count, starts, torch.device("cpu"))  # (starts, count)
    often = torch.bincount(index.flatten(), minlength=total)
    assert ((often - STARTS * count / total).abs() <= 2).all()
    # One from each part.
    part = torch.arange(count)
    assert (index >= part * total // count).all()
    assert (index <= -(-(part + 1) * total // count)).all()


def taken_samples(subsample, samples, steps, **options):
    """How often each step took each sample; the samples are the unit vectors."""
    module = nn.Linear(samples, 2, bias=False).double()
    optimizer = exact(module, subsample=subsample, stat_decay=0, **options)
    found = []
    for _ in range(steps):
        backward(module, torch.eye(samples).double())
        optimizer.step()
        shares = optimizer.inverse("").diagonal().reciprocal() - 0.1
        found.append(shares / shares[shares > 1e-9].min())
    return torch.stack(found).round()


@pytest.mark.parametrize(("subsample", "count"), [(1, 12), (2, 6), (5, 3), (12, 1), (100, 1)])
def test_one_sample_in_n_is_taken_and_others_in_the_next_step(subsample, count):
    found = taken_samples(subsample, 12, steps=40)
    assert (found.sum(1) == count).all()
    assert (found.sum(0) > 0).all()


def test_the_choice_depends_on_the_seed_and_the_step_alone():
    first, again, other = (taken_samples(4, 24, steps=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("side", "count"), [(5, 65), (6, 33), (8, 17), (16, 5), (32, 3)])
def test_auto_takes_fewer_images_where_an_image_has_many_positions(side, count):
    module = nn.Conv2d(2, 2, 3, padding=1).double()
    optimizer = exact(module, subsample="auto")
    start = optimizer.layers[""].pending.window.start
    inputs = randn(65, 2, side, side)
    chosen = inputs[spread(65, count, start, inputs.device)]
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, chosen)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


@pytest.mark.parametrize(
    ("shape", "count"),
    [((8, 128, 3), 1024), ((4096, 3), 1024), ((64, 1024, 3), 2048), ((2, 600, 300), 1200)],
)
def test_auto_takes_enough_rows_of_a_dense_layer(shape, count):
    module = nn.Linear(shape[-1], 2).double()
    optimizer = exact(module, subsample="auto")
    start = optimizer.layers[""].pending.window.start
    inputs = randn(*shape)
    chosen = inputs.flatten(0, -2)[spread(inputs[..., 0].numel(), count, start, inputs.device)]
    backward(module, inputs)
    optimizer.step()
    expected = damped_inverse(covariance(rows(module, chosen)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-9


def test_calls_count_by_all_their_rows():
    module = nn.Linear(3, 2).double()
    optimizer = exact(module, subsample=4)
    one, other = randn(1, 3), randn(1, 3, seed=1)
    for sample, samples in ((one, 5), (other, 9)):
        backward(module, sample.expand(samples, 3))
    optimizer.step()
    expected = covariance(rows(module, torch.cat([one.expand(5, 3), other.expand(9, 3)])))
    assert error(inverse_of(optimizer, module), damped_inverse(expected, 0.1)) < 1e-12


def test_a_resumed_run_takes_the_same_samples():
    def run(steps, module, optimizer):
        for step in steps:
            optimizer.zero_grad()
            backward(module, randn(32, 3, seed=step))
            optimizer.step()
        return {**state_of(optimizer), "weight": module.weight.detach().clone()}

    def build():
        torch.manual_seed(0)
        module = nn.Linear(3, 2).double()
        return module, plain(module, rank=2, subsample=8, cov_interval=2, inv_interval=4)

    undisturbed = run(range(9), *build())
    first, resumed = build(), build()
    run(range(5), *first)
    resumed[0].load_state_dict(first[0].state_dict())
    resumed[1].load_state_dict(first[1].state_dict())
    assert same(undisturbed, run(range(5, 9), *resumed))
