"""Activation checkpointing: the update is that of the plain forward, and nothing is kept alive."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from nysact import NysAct

from ..pairwise import pairwise
from .training import SETTINGS, assert_same, batches, rows, train


class Blocks(nn.Module):
    """Blocks of two layers, a stem before and a head behind, and one way to run them."""

    def __init__(self, run, side=None):
        super().__init__()
        torch.manual_seed(0)
        self.side = side
        if side:
            self.stem = nn.Conv2d(1, 4, 3, padding=1)
            self.blocks = nn.Sequential(*(self._block(nn.Conv2d(4, 4, 3, padding=1)) for _ in "ab"))
            self.head = nn.Linear(4, 3)
        else:
            self.stem = nn.Linear(6, 6)
            self.blocks = nn.Sequential(*(self._block(nn.Linear(6, 6)) for _ in "ab"))
            self.head = nn.Linear(6, 3)
        self.run = run
        self.double()

    def _block(self, layer):
        second = type(layer)(4, 4, 1) if self.side else nn.Linear(6, 6)
        return nn.Sequential(layer, nn.Tanh(), second, nn.Tanh())

    def forward(self, inputs):
        inner = self.run(self.blocks, self.stem(inputs))
        return self.head(inner.mean((2, 3)) if self.side else inner)


def plain(blocks, inputs):
    return blocks(inputs)


def checkpointed(use_reentrant):
    return lambda blocks, inputs: checkpoint(blocks, inputs, use_reentrant=use_reentrant)


def nested(outer, inner):
    """A checkpoint of checkpointed blocks."""

    def run(blocks, inputs):
        def each(x):
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=inner)
            return x

        return checkpoint(each, inputs, use_reentrant=outer)

    return run


def partly(use_reentrant):
    """The first block is used with and without a checkpoint."""

    def run(blocks, inputs):
        inner = blocks[0](inputs)
        return blocks[1](checkpoint(blocks[0], inner, use_reentrant=use_reentrant))

    return run


def partly_plain(blocks, inputs):
    return blocks[1](blocks[0](blocks[0](inputs)))


def in_turn(use_reentrant):
    return lambda blocks, inputs: checkpoint_sequential(
        blocks, 2, inputs, use_reentrant=use_reentrant
    )


RUNS = {
    "reentrant": (checkpointed(True), plain),
    "non-reentrant": (checkpointed(False), plain),
    "sequential reentrant": (in_turn(True), plain),
    "sequential non-reentrant": (in_turn(False), plain),
    "reentrant in reentrant": (nested(True, True), plain),
    "reentrant in non-reentrant": (nested(False, True), plain),
    "non-reentrant in reentrant": (nested(True, False), plain),
    "non-reentrant in non-reentrant": (nested(False, False), plain),
    "twice, once reentrant": (partly(True), partly_plain),
    "twice, once non-reentrant": (partly(False), partly_plain),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pairwise(name=RUNS, side=[None, 16], subsample=["auto", 3])
def test_a_checkpointed_model_learns_what_the_plain_one_does(name, side, subsample):
    run, reference_run = RUNS[name]
    make = batches if side else rows
    shape = {"shape": (1, side, side)} if side else {}
    data = make(6, samples=9, dtype=torch.float64, **shape)
    # At 16 pixels "auto" takes one sample in 16.
    settings = {**SETTINGS, "subsample": subsample}
    reference = NysAct(model := Blocks(reference_run, side), **settings)
    train(model, reference, data)
    optimizer = NysAct(model := Blocks(run, side), **settings)
    train(model, optimizer, data)
    assert_same(optimizer, reference, tolerance=1e-9)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_with_accumulated_gradients(use_reentrant):
    data = rows(6, samples=9, dtype=torch.float64)
    reference = NysAct(model := Blocks(plain), **SETTINGS)
    train(model, reference, data)
    optimizer = NysAct(model := Blocks(checkpointed(use_reentrant)), **SETTINGS)
    for inputs, targets in data:
        optimizer.zero_grad()
        for x, y in zip(inputs.split([2, 7]), targets.split([2, 7]), strict=True):
            (F.cross_entropy(model(x), y, reduction="sum") / 9).backward()
        optimizer.step()
    assert_same(optimizer, reference, tolerance=1e-9)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("owner", ["model", "optimizer"])
def test_a_skipped_step_under_checkpointing_leaves_no_trace(owner, use_reentrant):
    data = rows(6, dtype=torch.float64)
    run = checkpointed(use_reentrant)
    optimizers = []
    for skipped in ((), (0, 3, 4)):
        model = Blocks(run)
        optimizer = NysAct(model, **SETTINGS)
        zero = {"model": model, "optimizer": optimizer}[owner].zero_grad
        for step, (inputs, targets) in enumerate(data):
            if step in skipped:
                F.cross_entropy(model(7 * inputs), targets).backward()
                zero()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            zero()
        optimizers.append(optimizer)
    assert_same(*optimizers)


class Spy:
    """Weak references to what reaches some modules."""

    def __init__(self, *modules):
        self.seen = []
        for module in modules:
            module.register_forward_pre_hook(self._note)

    def _note(self, module, args):
        self.seen.append(weakref.ref(args[0]))

    def alive(self):
        return sum(reference() is not None for reference in self.seen)


@pytest.mark.parametrize("side", [None, 16])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activations_inside_a_checkpoint_die_with_the_forward(use_reentrant, side):
    model = Blocks(checkpointed(use_reentrant), side)
    optimizer = NysAct(model, **SETTINGS)
    spy = Spy(*(block[2] for block in model.blocks))
    inputs, _ = (batches(1, shape=(1, side, side)) if side else rows(1))[0]
    loss = model(inputs.double()).sum()
    assert len(spy.seen) == 2
    assert spy.alive() == 0
    loss.backward()
    assert len(spy.seen) == 4
    assert spy.alive() == 0
    assert all(layer.pending.has_calls for layer in optimizer.layers.values())


@pytest.mark.parametrize("side", [None, 16])
def test_no_activation_outlives_the_graph(side):
    model = Blocks(plain, side)
    optimizer = NysAct(model, **SETTINGS)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    spy = Spy(*layers)
    inputs, _ = (batches(1, shape=(1, side, side)) if side else rows(1))[0]
    inputs = inputs.double()
    loss = model(inputs).sum()
    assert spy.alive() == len(spy.seen) == len(layers)
    del loss, inputs
    assert spy.alive() == 0
    # Without a backward pass nothing counts.
    assert not any(layer.pending.has_calls for layer in optimizer.layers.values())
