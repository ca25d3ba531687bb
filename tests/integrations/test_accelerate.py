"""Accelerate."""

import pytest
import torch
import torch.nn.functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader

from nysact import NysAct, Preconditioner
from nysact.integrations import attach, unwrap

from ..loops.training import SETTINGS, assert_same, dense, rows, train
from .training import (
    BUILDERS,
    ENGINE,
    FIXED_ORDER,
    SAMPLES,
    SAVED_AT,
    STEPS,
    KilledError,
    adamw,
    assert_a_kill_changes_nothing,
    dataset,
    model,
)

accelerate = pytest.importorskip("accelerate")
integration = pytest.importorskip("nysact.integrations.accelerate")


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_a_prepared_loop_trains_as_a_plain_one_does(micro_batches):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=micro_batches)
    model, alone = dense(), dense()
    reference = NysAct(alone, **SETTINGS)
    loader = DataLoader(dataset(9), batch_size=SAMPLES // micro_batches)
    prepared, optimizer, loader = accelerator.prepare(model, NysAct(model, **SETTINGS), loader)
    for inputs, targets in loader:
        with accelerator.accumulate(prepared):
            accelerator.backward(F.cross_entropy(prepared(inputs), targets))
            accelerator.clip_grad_norm_(prepared.parameters(), 100.0)
            optimizer.step()
            optimizer.zero_grad()
    train(alone, reference, rows(9, SAMPLES))
    assert reference.param_groups[0]["step"] == unwrap(optimizer).param_groups[0]["step"] == 9
    assert_same(optimizer.optimizer, reference, tolerance=1e-4 if micro_batches > 1 else 1e-6)


def run(build, folder, *, seed=0, kill=False, resume=False, inner=model, samples=SAMPLES):
    """The loop of Accelerate's guide to checkpoints: save at a step, load, skip what was done."""
    ddp = accelerate.DistributedDataParallelKwargs(find_unused_parameters=FIXED_ORDER)
    accelerator = accelerate.Accelerator(cpu=True, kwargs_handlers=[ddp])
    accelerate.utils.set_seed(seed)
    prepared = inner(seed)
    data = dataset(dtype=next(prepared.parameters()).dtype)
    # With a generator of its own, a loader draws nothing from the global random stream.
    loader = DataLoader(data, batch_size=samples, generator=torch.Generator())
    optimizer = build(prepared)
    prepared, optimizer, loader = accelerator.prepare(prepared, optimizer, loader)
    integration.register(accelerator, optimizer)
    start = 0
    if resume:
        accelerator.load_state(folder)
        loader, start = accelerator.skip_first_batches(loader, SAVED_AT), SAVED_AT
    for step, (inputs, targets) in enumerate(loader, start=start):
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(prepared(inputs), targets))
        optimizer.step()
        if step + 1 == SAVED_AT:
            accelerator.save_state(folder)
        if kill and step + 1 == SAVED_AT + 2:
            raise KilledError
    return optimizer.optimizer


@pytest.mark.parametrize("build", BUILDERS)
def test_a_killed_training_resumes_bit_for_bit(build, tmp_path):
    assert_a_kill_changes_nothing(run, build, tmp_path)


def test_a_preconditioner_that_is_stepped_by_hand_is_saved_and_loaded(tmp_path):
    accelerator = accelerate.Accelerator(cpu=True)
    model = dense()
    preconditioner = Preconditioner(model, **ENGINE)
    integration.register(accelerator, preconditioner)
    model, _ = accelerator.prepare(model, AdamW(model.parameters()))
    train(model, preconditioner, rows(7))
    accelerator.save_state(tmp_path)
    before = preconditioner.inverse("0")
    train(model, preconditioner, rows(5, seed=2))
    accelerator.load_state(tmp_path)
    assert preconditioner.param_groups[0]["step"] == 7
    assert before.equal(preconditioner.inverse("0"))


@pytest.mark.parametrize("late", [False, True])
def test_a_preconditioner_may_be_attached_before_or_after_prepare(late):
    model, alone = dense(), dense()
    optimizer, reference = AdamW(model.parameters(), lr=0.01), adamw(alone)
    if late:
        model, optimizer = accelerate.Accelerator(cpu=True).prepare(model, optimizer)
    attach(Preconditioner(model, **ENGINE), optimizer)
    if not late:
        model, optimizer = accelerate.Accelerator(cpu=True).prepare(model, optimizer)
    train(model, optimizer, rows(STEPS))
    train(alone, reference, rows(STEPS))
    assert_same(unwrap(optimizer), unwrap(reference), tolerance=1e-6)
    assert unwrap(optimizer).diagnostics(flat=True)["0/trace_captured"] > 0
