"""Models that are wrapped after their optimizer is built, as frameworks do."""

import copy
import gc
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from nysact import FOOF, KFAC, NysAct, NysMuon, Preconditioner

from .training import (
    SETTINGS,
    alone,
    batch,
    distance,
    learned,
    network,
    same,
    train,
    trained,
    wrap,
)

STEPS = 10


def run(build, **options):
    model = network()
    optimizer = build(model, **{**SETTINGS, **options})
    wrapped = wrap(model, "ddp")
    with torch.no_grad():
        model(batch(0)[0])  # an evaluation outside the wrapper
    train(wrapped, optimizer, range(STEPS), sizes=[5, 3])
    assert optimizer._processes.ranks == {0, 1}
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.parametrize("build", [NysAct, NysMuon])
def test_replicas_learn_from_the_union(two, build):
    first, second = two(run, build)
    assert same(first, second)
    assert distance(first, alone(STEPS, build=build)) < 1e-10


@pytest.mark.parametrize("build", [FOOF, KFAC])
def test_the_family_does_too(two, build):
    first, second = two(family, build)
    assert same(first, second)


def family(build):
    options = {name: value for name, value in SETTINGS.items() if name != "rank"}
    found = []
    for early in (True, False):
        model = network()
        wrapped = None if early else wrap(model, "ddp")
        optimizer = build(model if early else wrapped, **options)
        train(wrapped or wrap(model, "ddp"), optimizer, range(STEPS), sizes=[4, 4])
        found.append(learned(optimizer))
    assert same(*found)
    return found[0]


def as_when_wrapped_before(**options):
    found = [run(NysAct, **options)]
    _, optimizer = trained("ddp", STEPS, sizes=(5, 3), **options)
    return same(found[0], learned(optimizer))


@pytest.mark.parametrize("options", [{}, {"share_refresh": True}, {"sketch": "columns"}], ids=str)
def test_all_bits_are_those_of_a_model_that_was_wrapped_before(two, options):
    assert two(as_when_wrapped_before, **options) == [True, True]


def resumed():
    """The state is loaded before the first forward, as frameworks do."""
    model, optimizer = trained("ddp", 7)
    saved = copy.deepcopy((model.module.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(7, 12), sizes=[4, 4])
    fresh = network(seed=5)
    late = NysAct(fresh, **SETTINGS)
    wrapped = wrap(fresh, "ddp")
    fresh.load_state_dict(saved[0])
    late.load_state_dict(saved[1])
    train(wrapped, late, range(7, 12), sizes=[4, 4])
    for each in (optimizer, late):
        each.consolidate()
    return same(learned(optimizer), learned(late))


def test_a_state_that_was_loaded_before_is_kept(two):
    assert two(resumed) == [True, True]


def with_adamw():
    model = network()
    settings = {name: value for name, value in SETTINGS.items() if name != "lr"}
    preconditioner = Preconditioner(model, **settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    wrapped = wrap(model, "ddp")

    class Both:
        zero_grad = preconditioner.zero_grad

        def step(self):
            preconditioner.step()
            optimizer.step()

    train(wrapped, Both(), range(STEPS), sizes=[4, 4])
    return {name: param.detach() for name, param in model.named_parameters()}


def test_the_engine_alone_finds_them_too(two):
    first, second = two(with_adamw)
    assert same(first, second)


def copies_and_leftovers():
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    copied = copy.deepcopy(model)  # as an average of the weights is
    copied(batch(0)[0])
    wrapped = wrap(model, "ddp")
    wrapped(batch(0)[0])
    assert not any(module._forward_pre_hooks for module in model.modules())
    other = network()
    optimizer = NysAct(other)
    del optimizer
    gc.collect()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in other.modules())
    return True


def test_the_search_leaves_no_hook_behind(two):
    assert two(copies_and_leftovers) == [True, True]


def test_one_process_searches_nothing():
    model = network()
    NysAct(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def launched_early(monkeypatch=None):
    """Built by a program that torchrun started, before the processes know of each other."""
    model = network()
    with (
        mock.patch.object(dist, "is_initialized", return_value=False),
        mock.patch.dict("os.environ", {"TORCHELASTIC_RUN_ID": "1"}),
    ):
        optimizer = NysAct(model, **SETTINGS)
    train(wrap(model, "ddp"), optimizer, range(STEPS), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


def test_an_optimizer_older_than_the_process_group_finds_it(two):
    first, second = two(launched_early)
    assert same(first, second)
    assert distance(first, alone(STEPS)) < 1e-10


def test_a_program_that_torchrun_started_may_train_alone(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(STEPS))
    assert same(learned(optimizer), alone(STEPS))


def sharded(hands_over):
    """``fully_shard`` replaces the parameters; Accelerate hands the optimizer the new ones."""
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    names = [group["param_names"] for group in optimizer.param_groups]
    fully_shard(model)
    if hands_over:
        params = dict(model.named_parameters())
        for group, own in zip(optimizer.param_groups, names, strict=True):
            group["params"] = [params[name] for name in own]
    else:
        with pytest.raises(ValueError, match="build the optimizer again from the model as it is"):
            model(batch(0)[0])
        return None
    train(model, optimizer, range(STEPS), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


def test_shards_that_are_handed_over_learn_from_the_union(two):
    first, second = two(sharded, True)
    assert same(first, second)
    assert distance(first, alone(STEPS)) < 1e-10


def test_shards_that_the_optimizer_does_not_know_are_refused(two):
    assert two(sharded, False) == [None, None]


def compiled():
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    wrapped = torch.compile(DistributedDataParallel(model), backend="eager")
    train(wrapped, optimizer, range(6), sizes=[4, 4])
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.slow
def test_a_compiled_wrapper_is_found(two):
    first, second = two(compiled)
    assert same(first, second)
    assert distance(first, alone(6)) < 1e-10


@pytest.mark.slow
def test_four_processes_are_found(four):
    first, *others = four(run_of_four)
    assert all(same(first, other) for other in others)
    assert distance(first, alone(STEPS)) < 1e-10


def run_of_four():
    model = network()
    optimizer = NysAct(model, **SETTINGS)
    train(wrap(model, "ddp"), optimizer, range(STEPS), sizes=[3, 1, 2, 2])
    optimizer.consolidate()
    return learned(optimizer)
