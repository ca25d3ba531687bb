"""Checkpoints of one process, of replicas and of shards stand in for each other."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor

from nysact import NysAct, Preconditioner

from .training import SETTINGS, alone, distance, learned, network, same, train, wrap

# In the middle of a window, with statistics that were not reduced yet.
SAVED_AT, STEPS = 7, 12
SPREADS = ["alone", "ddp", "fsdp"]


def build(how, seed=0):
    model = network(seed=seed) if how == "alone" else wrap(network(seed=seed), how)
    return model, NysAct(model, **SETTINGS)


def sizes(how):
    if how == "alone":
        return None
    return [8 // dist.get_world_size()] * dist.get_world_size()


def save(how, path, flatten):
    model, optimizer = build(how)
    train(model, optimizer, range(SAVED_AT), sizes=sizes(how))
    optimizer.consolidate()
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    weights, state = get_state_dict(model, optimizer, options=options)
    state = {"model": weights, "optimizer": state}
    dcp.save(state, checkpoint_id=path, no_dist=how == "alone")
    train(model, optimizer, range(SAVED_AT, STEPS), sizes=sizes(how))
    optimizer.consolidate()
    return learned(optimizer)


def resume(how, path, flatten):
    model, optimizer = build(how, seed=5)
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    weights, state = get_state_dict(model, optimizer, options=options)
    loaded = {"model": weights, "optimizer": state}
    dcp.load(loaded, checkpoint_id=path, no_dist=how == "alone")
    set_state_dict(
        model,
        optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
        options=options,
    )
    train(model, optimizer, range(SAVED_AT, STEPS), sizes=sizes(how))
    optimizer.consolidate()
    return learned(optimizer)


def everywhere(workers, function, how, *args):
    """Run in the processes that a spread has; give what one of them returned."""
    if how == "alone":
        return function(how, *args)
    first, *others = workers(function, how, *args)
    assert all(same(first, other) for other in others)
    return first


@pytest.mark.parametrize("saver", SPREADS)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_every_spread_goes_on_from_every_other(two, saver, tmp_path):
    flatten = saver == "fsdp"
    straight = everywhere(two, save, saver, tmp_path, flatten)
    assert distance(straight, alone(STEPS)) < 1e-10
    for loader in SPREADS:
        resumed = everywhere(two, resume, loader, tmp_path, flatten)
        if loader == saver:
            assert same(resumed, straight)
        assert distance(resumed, straight) < 1e-10, loader


@pytest.mark.slow
@pytest.mark.parametrize("saver", ["ddp", "fsdp", "hsdp"])
def test_four_processes_save_what_two_load_and_the_reverse(two, four, saver, tmp_path):
    straight = everywhere(four, save, saver, tmp_path / "4", False)
    for loader in ("ddp", "fsdp"):
        resumed = everywhere(two, resume, loader, tmp_path / "4", False)
        assert distance(resumed, straight) < 1e-10
    everywhere(two, save, "fsdp", tmp_path / "2", True)
    resumed = everywhere(four, resume, saver, tmp_path / "2", True)
    assert distance(resumed, straight) < 1e-10


def described(how):
    """A state dict of an optimizer that has done no step yet, as before loading one."""
    results = []
    for asks in (False, True):
        model, optimizer = build(how)
        if asks:
            get_state_dict(model, optimizer)
            assert all(group["step"] == 0 for group in optimizer.param_groups)
        train(model, optimizer, range(STEPS), sizes=sizes(how))
        age = optimizer.diagnostics()["7"]["refresh_age"]
        optimizer.consolidate()
        results.append((learned(optimizer), age))
    (straight, first), (asked, second) = results
    return same(straight, asked) and first == second


@pytest.mark.parametrize("how", SPREADS)
def test_asking_a_new_optimizer_for_its_state_is_no_step(two, how):
    assert described("alone") if how == "alone" else all(two(described, how))


def test_asking_the_engine_alone_for_its_state_is_no_step():
    model = network()
    engine = Preconditioner(model, rank=3)
    get_optimizer_state_dict(model, engine)
    assert engine.param_groups[0]["step"] == 0
    # A step that moves something counts, forward or none.
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    engine.state.clear()
    engine.step()
    assert engine.param_groups[0]["step"] == 1


def full_state(path):
    """The first process saves all, and all take it over from the first."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, optimizer = build("fsdp")
    train(model, optimizer, range(SAVED_AT), sizes=sizes("fsdp"))
    optimizer.consolidate()
    state = get_optimizer_state_dict(model, optimizer, options=options)
    # Only the first process has it.
    states = state.get("state", {})
    assert bool(states) == (dist.get_rank() == 0)
    assert not any(isinstance(value, DTensor) for s in states.values() for value in s.values())
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    # The framework lets an optimizer make its state only where there are no gradients yet.
    optimizer.zero_grad()
    restored = NysAct(model, **SETTINGS)
    set_optimizer_state_dict(model, restored, copy.deepcopy(state), options=options)
    return same(learned(restored), learned(optimizer))


def test_full_state_dicts_are_taken_over_from_the_first_process(two, tmp_path):
    assert two(full_state, tmp_path) == [True, True]


def replica_state(path):
    model, optimizer = build("ddp")
    train(model, optimizer, range(SAVED_AT), sizes=sizes("ddp"))
    optimizer.consolidate()
    if dist.get_rank() == 0:
        torch.save((model.module.state_dict(), optimizer.state_dict()), path)
    dist.barrier()


def loaded(how, path):
    model, optimizer = build(how)
    weights, state = torch.load(path, weights_only=True)
    if how == "alone":
        model.load_state_dict(weights)
    elif how == "ddp":
        model.module.load_state_dict(weights)
    else:
        train(model, optimizer, range(SAVED_AT), sizes=sizes(how))
    optimizer.load_state_dict(state)
    train(model, optimizer, range(SAVED_AT, STEPS), sizes=sizes(how))
    optimizer.consolidate()
    return learned(optimizer)


@pytest.mark.parametrize("how", SPREADS)
def test_what_one_replica_saved_serves_every_spread(two, how, tmp_path):
    two(replica_state, tmp_path / "state.pt")
    result = everywhere(two, loaded, how, tmp_path / "state.pt")
    assert distance(result, alone(STEPS)) < 1e-10


def shards_into_one():
    model, optimizer = build("fsdp")
    train(model, optimizer, range(2), sizes=[4, 4])
    optimizer.consolidate()
    state = optimizer.state_dict()
    plain = NysAct(network(), process_group=False, **SETTINGS)
    with pytest.raises(ValueError, match="full_state_dict=True"):
        plain.load_state_dict(state)
    return True


def test_shards_loaded_into_a_whole_model_are_refused_with_the_remedy(two):
    assert two(shards_into_one) == [True, True]


def unconsolidated():
    model, optimizer = build("ddp")
    for step in range(3):
        train(model, optimizer, [step], sizes=[4, 4])
        if step == 0:  # right after a refresh
            optimizer.state_dict()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # shows a text once
        state = optimizer.state_dict()
        train(model, optimizer, [3], sizes=[4, 4])
        optimizer.state_dict()
    texts = [str(warning.message) for warning in caught]
    assert [text[:24] for text in texts] == [f"the state dict of step {step}" for step in (3, 4)]
    assert all("optimizer.consolidate() on all processes" in text for text in texts)
    # The first window's refresh was the last reduction: what came since is of one process alone.
    return [state["state"][0]["rows"].item(), state["state"][0]["sketch"].abs().sum().item()]


def test_a_state_without_the_last_statistics_says_so_each_time_and_is_the_same_everywhere(two):
    assert two(unconsolidated) == [[0.0, 0.0]] * 2


def test_consolidating_in_one_process_does_nothing():
    model, optimizer = build("alone")
    train(model, optimizer, range(3))
    before = learned(optimizer)
    optimizer.consolidate()
    optimizer.state_dict()
    assert same(learned(optimizer), before)
