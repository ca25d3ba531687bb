"""Several processes learn what one learns from the union of their batches."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, Preconditioner

from ..oracles import randn
from .training import (
    SETTINGS,
    alone,
    batch,
    distance,
    learned,
    loss_of,
    my_share,
    network,
    run,
    same,
    train,
    whole,
    wrap,
)

WEIGHTS = [name for name, _ in network().named_parameters()]


@pytest.mark.parametrize(
    ("how", "sketch", "steps"),
    [
        ("ddp", "subspace", 50),
        ("fsdp", "subspace", 50),
        ("hsdp", "subspace", 10),
        ("ddp", "columns", 10),
        ("fsdp", "gaussian", 10),
    ],
)
def test_equal_shares_give_the_union_in_double_precision(two, how, sketch, steps):
    first, second = two(run, how, steps, sketch=sketch)
    assert same(first, second)
    assert distance(first, alone(steps, sketch=sketch)) < 1e-10


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_equal_shares_give_the_union_to_rounding_in_single_precision(two, how):
    first, second = two(run, how, 50, dtype=torch.float32)
    expected = alone(50, dtype=torch.float32)
    sketches = [name for name in expected if name.endswith(("sketch", "trace", "rows"))]
    assert same(first, second)
    assert distance(first, expected, WEIGHTS) < 1e-5
    assert distance(first, expected, sketches) < 1e-4


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("sizes", [(5, 3), (8, 0)], ids=str)
def test_unequal_shares_and_an_empty_one_give_the_union(two, how, sizes):
    first, second = two(run, how, 10, sizes=sizes)
    assert same(first, second)
    assert distance(first, alone(10)) < 1e-10


@pytest.mark.parametrize(("how", "rank"), [("ddp", 3), ("ddp", 1000), ("fsdp", 3)])
def test_shared_refreshes_give_the_same_factors(two, how, rank):
    first, second = two(run, how, 10, rank=rank, share_refresh=True)
    assert same(first, second)
    assert distance(first, alone(10, rank=rank), WEIGHTS) < 1e-10


@pytest.mark.parametrize("build", [FOOF, KFAC, Eva, SKFAC], ids=lambda build: build.__name__)
@pytest.mark.parametrize("share_refresh", [False, True])
def test_the_family_learns_from_the_union(two, build, share_refresh):
    options = {"rank": 16} if build is SKFAC else {}
    del_rank = {key: value for key, value in SETTINGS.items() if key != "rank"}
    first, second = two(family, build, del_rank | options, share_refresh)
    one = network()
    optimizer = build(one, **without(del_rank | options, build))
    train(one, optimizer, range(10))
    assert same(first, second)
    expected = learned(optimizer)
    # The rows that SKFAC keeps stand in another order, and eigenvectors have no sign.
    assert distance(first, expected, WEIGHTS) < 1e-9


def without(options, build):
    """SKFAC takes no other samples than the first."""
    return {k: v for k, v in options.items() if build is not SKFAC or k != "subsample"}


def family(build, options, share_refresh):
    model = wrap(network(), "ddp")
    optimizer = build(model, share_refresh=share_refresh, **without(options, build))
    train(model, optimizer, range(10), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


def test_foof_under_fully_shard_clips_by_the_whole_model(two):
    options = {k: v for k, v in SETTINGS.items() if k != "rank"} | {"kl_clip": 1e-4}
    first, _ = two(clipped, options)
    model = network()
    optimizer = FOOF(model, **options)
    train(model, optimizer, range(10))
    assert distance(first, learned(optimizer), WEIGHTS) < 1e-10


def clipped(options):
    model = wrap(network(), "fsdp")
    optimizer = FOOF(model, **options)
    train(model, optimizer, range(10), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_the_engine_alone_serves_another_optimizer(two, how):
    first, second = two(with_adamw, how)
    model = network()
    expected = adamw(model, model, None)
    assert same(first, second)
    assert distance(first, expected) < 1e-8


def with_adamw(how):
    model = network()
    wrapped = wrap(model, how)
    return adamw(wrapped, model, [5, 3])


def adamw(wrapped, model, sizes):
    settings = {key: value for key, value in SETTINGS.items() if key != "lr"}
    preconditioner = Preconditioner(wrapped, **settings)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.01)

    class Both:
        def zero_grad(self):
            preconditioner.zero_grad()

        def step(self):
            preconditioner.step()
            optimizer.step()

    train(wrapped, Both(), range(10), sizes=sizes)
    return {name: whole(value.detach()) for name, value in model.named_parameters()}


# --- loops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_accumulated_micro_batches_give_the_union(two, how):
    first, second = two(accumulated, how)
    assert same(first, second)
    assert distance(first, alone(10)) < 1e-10


def accumulated(how):
    model = wrap(network(), how)
    optimizer = NysAct(model, **SETTINGS)
    for step in range(10):
        inputs, targets = my_share(batch(step), [5, 3])
        optimizer.zero_grad()
        parts = zip(inputs.tensor_split(2), targets.tensor_split(2), strict=True)
        for part, (x, y) in enumerate(parts):
            synchronise(model, part == 1, lambda x=x, y=y: 2 * loss_of(model(x), y, 8))
        optimizer.step()
    optimizer.consolidate()
    return learned(optimizer)


def synchronise(model, reduces, loss):
    if isinstance(model, DistributedDataParallel):
        if reduces:
            loss().backward()
        else:
            with model.no_sync():
                loss().backward()
    else:
        model.set_requires_gradient_sync(reduces)
        loss().backward()


class Branches(nn.Module):
    """Two branches, of which a sample takes one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.head = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 2)
        self.double()

    def forward(self, inputs, right):
        hidden = torch.cat(
            [
                branch(inputs[chosen])
                for branch, chosen in ((self.left, ~right), (self.right, right))
                if chosen.any()
            ]
        )
        return self.head(torch.tanh(hidden))


def branching(sizes):
    """Train where a branch has samples on one process only, on both, or on none.

    Both have some in the first step; where one process is alone, it refreshes later ones at once.
    """
    model = Branches()
    if sizes is not None:
        model = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = NysAct(model, **SETTINGS, momentum=0.5)
    for step in range(12):
        inputs = randn(8, 6, seed=step)
        right = torch.arange(8) >= (6, 8, 4, 0)[step % 4]
        scale = 1
        if sizes is not None:
            inputs, right = my_share((inputs, right), sizes)
            scale = 2
        optimizer.zero_grad()
        (model(inputs, right).square().sum() / 8 * scale).backward()
        optimizer.step()
    optimizer.consolidate()
    return learned(optimizer)


def test_layers_without_data_on_some_processes_learn_from_the_union(two):
    first, second = two(branching, [4, 4])
    assert same(first, second)
    assert distance(first, branching(None)) < 1e-10


def freezing(sizes):
    """A bias is frozen within a window, so that the layers are stacked anew."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    # FOOF's averages go on from window to window.
    options = {"lr": 0.1, "damping": 0.1, "cov_interval": 1, "inv_interval": 4, "subsample": 1}
    wrapped = inner
    if sizes is not None:
        wrapped = DistributedDataParallel(inner, find_unused_parameters=True)
    optimizer = FOOF(wrapped, **options)
    for step in range(9):
        inputs = randn(8, 6, seed=step) * (4 if step < 4 else 1)
        scale = 1
        if sizes is not None:
            (inputs,), scale = my_share([inputs], sizes), len(sizes)
        inner[2].bias.requires_grad_(step != 7)
        optimizer.zero_grad()
        (wrapped(inputs).square().sum() / 8 * scale).backward()
        optimizer.step()
    return {name: value.detach() for name, value in inner.named_parameters()}


def test_a_bias_frozen_within_a_window_leaves_the_averages_as_they_were(two):
    first, second = two(freezing, [4, 4])
    assert same(first, second)
    assert distance(first, freezing(None)) < 1e-10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_left_out_where_it_was_seen(two, bad):
    """The other process's data counts, as if the spoiled batch had been of that alone."""
    first, second = two(spoiled, bad)
    module = nn.Linear(6, 2).double()
    optimizer = NysAct(module, **SETTINGS | {"cov_interval": 1})
    for step in range(4):
        inputs = randn(8, 6, seed=step)
        module(inputs[:4] if step == 1 else inputs)
        optimizer.step()
    state = dict(optimizer.state[module.weight].items())
    assert same(first, second)
    assert distance(first, state) < 1e-12


def spoiled(bad):
    torch.manual_seed(0)
    module = nn.Linear(6, 2).double()
    optimizer = NysAct(module, process_group=dist.group.WORLD, **SETTINGS | {"cov_interval": 1})
    for step in range(4):
        (inputs,) = my_share([randn(8, 6, seed=step)], [4, 4])
        if dist.get_rank() == 1 and step == 1:
            inputs = inputs.clone()
            inputs[2, 3] = bad
        module(inputs)
        optimizer.step()
    optimizer.consolidate()
    return dict(optimizer.state[module.weight])


@pytest.mark.parametrize("build", [KFAC, Eva])
def test_two_sided_statistics_of_unequal_mean_losses_are_those_of_all_samples(two, build):
    first, second = two(one_step_of_means, build, [5, 3])
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    expected = one_step_of_means(build, None)
    assert len(model) == 3
    assert same(first, second)
    assert distance(first, expected) < 1e-12


def one_step_of_means(build, sizes):
    """Means of the statistics after one step, before any refresh has used them up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    group = False if sizes is None else dist.group.WORLD
    optimizer = build(model, lr=0.0, cov_interval=1, inv_interval=1, process_group=group)
    inputs = randn(8, 6)
    if sizes is not None:
        (inputs,) = my_share([inputs], sizes)
    model(inputs).square().sum(-1).mean().backward()
    optimizer.step()
    found = {}
    for name, layer in optimizer.layers.items():
        state = optimizer.state[layer.weight]
        for key in build_statistics(build):
            count = state["samples" if key.startswith("output") else "rows"]
            found[f"{name}.{key}"] = state[key] / count
    return found


def build_statistics(build):
    if build is Eva:
        return ("input_mean", "output_mean")
    return ("input_covariance", "output_covariance")
