"""Sharded rows are preconditioned where they lie."""

import traceback
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode

from nysact import FOOF, KFAC, NysAct

from ..oracles import randn
from .training import (
    SETTINGS,
    alone,
    batch,
    distance,
    learned,
    my_share,
    network,
    run,
    same,
    train,
    wrap,
)

STEPS = 6


class Attention(nn.Module):
    """Three groups of rows, of which each process holds one and a half."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, inputs):
        # fully_shard warns of views.
        return self.attention(inputs, inputs.flip(1), inputs, need_weights=False)[0].clone()


MODELS = {
    "fewer rows than processes": (lambda: nn.Linear(6, 1), (8, 6)),
    "uneven rows": (lambda: nn.Linear(6, 3), (8, 6)),
    "no bias": (lambda: nn.Linear(6, 5, bias=False), (8, 6)),
    "groups split": (lambda: nn.Conv2d(6, 6, 2, groups=3), (8, 6, 4, 4)),
    "groups whole": (lambda: nn.Conv2d(4, 6, 2, groups=2), (8, 4, 4, 4)),
    "one row a group": (lambda: nn.Conv2d(3, 3, 2, groups=3, bias=False), (8, 3, 4, 4)),
    "fewer groups than processes": (lambda: nn.Conv1d(4, 3, 2), (8, 4, 5)),
    "attention": (Attention, (8, 5, 6)),
}
INPUTS_FIRST = {
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 2), (8, 2, 4, 4)),
    "transposed, in groups": (lambda: nn.ConvTranspose2d(4, 8, 2, groups=2), (8, 4, 3, 3)),
}


def fit(module, shape, build, options, sizes=None, steps=STEPS):
    """Train one module towards zero outputs."""
    optimizer = build(module, **options)
    for step in range(steps):
        inputs, scale = randn(*shape, seed=step), 1
        if sizes is not None:
            (inputs,), scale = my_share([inputs], sizes), 2
        optimizer.zero_grad()
        (module(inputs).square().sum() / shape[0] * scale).backward()
        optimizer.step()
    optimizer.consolidate()
    return optimizer


def sharded(name, build, options, placement=None):
    make, shape = (MODELS | INPUTS_FIRST)[name]
    torch.manual_seed(0)
    module = fully_shard(make().double(), shard_placement_fn=placement)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return learned(fit(module, shape, build, options, [4, 4]))


def unsharded(name, build, options):
    make, shape = (MODELS | INPUTS_FIRST)[name]
    torch.manual_seed(0)
    return learned(fit(make().double(), shape, build, options))


@pytest.mark.parametrize("name", MODELS)
def test_shards_of_every_kind_of_layer_move_as_the_whole_does(two, name):
    first, second = two(sharded, name, NysAct, SETTINGS)
    assert same(first, second)
    assert distance(first, unsharded(name, NysAct, SETTINGS)) < 1e-10


def by_outputs(param):
    """Along dimension 1, but for the biases."""
    return Shard(min(1, param.ndim - 1))


@pytest.mark.parametrize("name", INPUTS_FIRST)
def test_weights_stored_inputs_first_are_sharded_by_outputs_on_request(two, name):
    first, second = two(sharded, name, NysAct, SETTINGS, by_outputs)
    assert same(first, second)
    options = dict(SETTINGS)
    if "groups" in name:
        # Each process holds outputs of every group, whose biases lie in a row of their own.
        assert first["weight.sketch"].shape[-2] == 2 * 4
    else:
        assert distance(first, unsharded(name, NysAct, options)) < 1e-10


def split_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ConvTranspose2d(4, 2, 2)).double()
    fully_shard(model)
    with pytest.warns(
        UserWarning, match=r"'1' among them.*shard_placement_fn=lambda p: Shard\(1\)"
    ):
        optimizer = NysAct(model, **SETTINGS)
    return list(optimizer.layers), optimizer.skipped["1"]


def test_a_split_of_the_inputs_is_left_out_with_the_remedy(two):
    for layers, reason in two(split_inputs):
        assert layers == ["0"]
        assert "splits the inputs" in reason


def test_foof_serves_shards_too(two):
    options = {"lr": 0.1, "cov_interval": 1, "inv_interval": 2, "subsample": 1}
    first, _ = two(sharded, "groups split", FOOF, options)
    expected = unsharded("groups split", FOOF, options)
    assert distance(first, expected, ["weight", "bias"]) < 1e-10


# --- what is held where ----------------------------------------------------------------------


def placement(how):
    model = wrap(network(), how)
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(3), sizes=[4, 4])
    weight = optimizer.layers["7"].weight
    state = optimizer.state[weight]
    momentum = state.pop("momentum_buffer")
    assert isinstance(momentum, DTensor)
    assert momentum.placements == weight.placements
    assert momentum.device_mesh == weight.device_mesh
    assert not any(isinstance(value, DTensor) for value in state.values())
    return tuple(momentum.to_local().shape), tuple(state["basis"].shape)


def test_momentum_is_sharded_and_factors_are_replicas(two):
    assert two(placement, "fsdp") == [((4, 45), (1, 46, 3)), ((3, 45), (1, 46, 3))]
    assert two(placement, "hsdp") == [((7, 45), (1, 46, 3))] * 2


class Products(TorchDispatchMode):
    """Notes for each matrix product of the library whether it runs while gradients are reduced."""

    def __init__(self):
        super().__init__()
        self.reducing = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in func.__name__:
            files = [frame.filename for frame in traceback.extract_stack()]
            if any("nysact" in Path(file).parts and "src" in Path(file).parts for file in files):
                self.reducing.append(any("_fsdp_collectives" in file for file in files))
        return func(*args, **(kwargs or {}))


def products(how):
    model = wrap(network(), how)
    optimizer = NysAct(model, **SETTINGS)
    loss = model(batch(0)[0]).sum()
    with Products() as during:
        loss.backward()
        optimizer.step()
    return bool(during.reducing), any(during.reducing)


@pytest.mark.parametrize("how", ["fsdp", "hsdp"])
def test_no_statistics_are_taken_where_gradients_are_reduced(two, how):
    # The hooks of fully_shard run on a stream of their own.
    assert two(products, how) == [(True, False)] * 2


# --- options of fully_shard ------------------------------------------------------------------


@pytest.mark.parametrize("reshard", [False, True])
def test_resharding_after_the_forward_changes_nothing(two, reshard):
    first, second = two(run, "fsdp", STEPS, wrapping={"reshard_after_forward": reshard})
    assert same(first, second)
    assert distance(first, alone(STEPS)) < 1e-10


def mixed():
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = wrap(network(torch.float32), "fsdp", mp_policy=policy)
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(STEPS), sizes=[4, 4], dtype=torch.float32)
    optimizer.consolidate()
    dtypes = {value.dtype for state in optimizer.state.values() for value in state.values()}
    return learned(optimizer), dtypes


def test_mixed_precision_keeps_statistics_and_momentum_in_single(two):
    (first, dtypes), (second, _) = two(mixed)
    assert dtypes == {torch.float32, torch.int64}
    assert same(first, second)
    assert distance(first, alone(STEPS, dtype=torch.float32), ["7.weight"]) < 0.05


def from_meta():
    with torch.device("meta"):
        model = network()
    wrap(model, "fsdp")
    model.to_empty(device="cpu")
    with torch.no_grad():
        for mine, value in zip(model.parameters(), network().parameters(), strict=True):
            shard = DTensor.from_local(value, mine.device_mesh, run_check=False)
            mine.copy_(shard.redistribute(placements=mine.placements))
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(STEPS), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


def test_a_model_made_on_the_meta_device_trains_as_any_other(two):
    first, second = two(from_meta)
    assert same(first, second)
    assert distance(first, alone(STEPS)) < 1e-10


# --- gradients that are dropped --------------------------------------------------------------


def skipping(skips, resets):
    model = wrap(network(), "fsdp")
    optimizer = NysAct(model, **SETTINGS | {"cov_interval": 1, "inv_interval": 2})
    if skips:
        model(randn(4, 1, 8, 8, seed=77)).sum().backward()
        (optimizer if resets == "optimizer" else model).zero_grad()
    train(model, optimizer, range(3), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.parametrize("resets", ["optimizer", "model"])
def test_what_a_skipped_step_saw_is_dropped(two, resets):
    once, _ = two(skipping, True, resets)
    never, _ = two(skipping, False, resets)
    assert same(once, never)


def scheduled():
    """Everything that is usual around a step."""
    model = wrap(network(), "fsdp")
    optimizer = NysAct(model, nesterov=True, decoupled_weight_decay=True, **SETTINGS)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(STEPS):
        train(model, _Unstepped(optimizer, model), [step], sizes=[4, 4])
        schedule.step()
    optimizer.consolidate()
    return learned(optimizer)


class _Unstepped:
    def __init__(self, optimizer, model):
        self.optimizer, self.model = optimizer, model
        self.zero_grad = optimizer.zero_grad

    def step(self):
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()


def test_clipping_schedules_and_decoupled_decay_work_on_shards(two):
    first, second = two(scheduled)
    model = network()
    optimizer = NysAct(model, nesterov=True, decoupled_weight_decay=True, **SETTINGS)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(STEPS):
        train(model, _Unstepped(optimizer, model), [step])
        schedule.step()
    assert same(first, second)
    assert distance(first, learned(optimizer)) < 1e-10


# --- what is refused -------------------------------------------------------------------------


def refusals():
    with pytest.raises(ValueError, match="use DistributedDataParallel, or NysAct or FOOF"):
        KFAC(wrap(network(), "fsdp"))
    with pytest.raises(TypeError, match="fully_shard"):
        NysAct(FullyShardedDataParallel(network(), device_id=torch.device("cpu")))
    with pytest.raises(ValueError, match="process_group=False"):
        NysAct(wrap(network(), "fsdp"), process_group=False)
    return dist.get_rank()


def test_what_shards_cant_serve_is_refused_with_the_remedy(two):
    assert two(refusals) == [0, 1]
