"""Mixed precision: autocast, low and high precision parameters, scaled losses, skipped steps."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from nysact import NysAct, Preconditioner

from ..pairwise import pairwise
from .training import SETTINGS, assert_same, batches, covariance_of, dense, network, rows, train

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize(("build", "draw"), [(network, batches), (dense, rows)])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_keeps_statistics_in_float32_and_close_to_those_without(dtype, build, draw):
    data = draw(5)
    plain, mixed = build(), build()
    reference, optimizer = NysAct(plain, **SETTINGS), NysAct(mixed, **SETTINGS)
    train(plain, reference, data)

    def forward(inputs):
        with torch.autocast("cpu", dtype=dtype):
            outputs = mixed(inputs)
        assert outputs.dtype == dtype
        return outputs.float()

    train(mixed, optimizer, data, forward)
    for name in optimizer.layers:
        weight = mixed.get_submodule(name).weight
        assert weight.dtype == torch.float32
        floats = [v for v in optimizer.state[weight].values() if v.is_floating_point()]
        assert {value.dtype for value in floats} == {torch.float32}
        expected = covariance_of(reference, name)
        actual = covariance_of(optimizer, name)
        distance = float((actual - expected).norm() / expected.norm())
        if name == "0":
            # Its inputs are the data: nothing but the statistic's own arithmetic could differ.
            assert distance < 1e-5
        else:
            # Its inputs come out of a low precision.
            assert 1e-5 < distance < 0.02


@pytest.mark.parametrize(
    ("dtype", "statistic"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_parameters_of_any_precision_are_trained_with_statistics_in_float32_at_least(
    dtype, statistic
):
    model = network(dtype=dtype)
    optimizer = NysAct(model, **SETTINGS)
    inputs, targets = batches(1, dtype=dtype)[0]
    losses = train(model, optimizer, [(inputs, targets)] * 20)
    assert losses[-1] < 0.9 * losses[0]
    assert {param.dtype for param in model.parameters()} == {dtype}
    for layer in optimizer.layers.values():
        state = dict(optimizer.state[layer.weight])
        assert state.pop("momentum_buffer").dtype == dtype
        floats = {value.dtype for value in state.values() if value.is_floating_point()}
        assert floats == {statistic}


def test_layers_of_different_precision_in_one_model():
    model = dense()
    model[2].double()
    inputs, targets = rows(1)[0]
    optimizer = NysAct(model, **SETTINGS)

    def forward(x):
        x = model[1](model[0](x))
        x = model[3](model[2](x.double()))
        return model[4](x.float())

    losses = train(model, optimizer, [(inputs, targets)] * 10, forward)
    assert losses[-1] < 0.9 * losses[0]
    assert optimizer.inverse("0").dtype == torch.float32
    assert optimizer.inverse("2").dtype == torch.float64


# --- scaled losses ------------------------------------------------------------------------------

ORDERS = ["zero before forward", "zero before backward", "zero after step"]
CLEARS = [
    ("optimizer", True),
    ("optimizer", False),
    ("model", True),
]


def scaled_loop(optimizer, model, data, order, clear, poisoned=(), accumulate=1):
    """A loop with a scaler; steps in ``poisoned`` see a batch of their own and overflow."""
    owner, set_to_none = clear
    zero = {"optimizer": optimizer, "model": model}[owner].zero_grad
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    data = iter(data)
    for step in itertools.count():
        overflow = step in poisoned
        if order == "zero before forward":
            zero(set_to_none=set_to_none)
        for part in range(accumulate):
            if overflow:
                inputs, targets = rows(1, seed=100 + step)[0]
                inputs = 10 * inputs
            else:
                try:
                    inputs, targets = next(data)
                except StopIteration:
                    return
            outputs = model(inputs)
            if order == "zero before backward" and part == 0:
                zero(set_to_none=set_to_none)
            loss = F.cross_entropy(outputs, targets)
            scaler.scale(loss * torch.inf if overflow else loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        assert (scaler.get_scale() < before) == overflow
        if order == "zero after step":
            zero(set_to_none=set_to_none)


@pairwise(order=ORDERS, clear=CLEARS, poisoned=[(0,), (2,), (4, 5), (1, 3), (8, 9, 10)])
def test_a_skipped_step_leaves_no_trace(order, clear, poisoned):
    """Scales are powers of two, so a run that never met the bad batches is equal bit for bit."""
    data = rows(9)
    smooth, rough = dense(), dense()
    settings = {**SETTINGS, "cov_interval": 2, "inv_interval": 4}
    reference, optimizer = NysAct(smooth, **settings), NysAct(rough, **settings)
    scaled_loop(reference, smooth, data, order, clear)
    scaled_loop(optimizer, rough, data, order, clear, poisoned)
    assert_same(optimizer, reference)


@pytest.mark.parametrize("clear", CLEARS, ids=lambda clear: f"{clear[0]}-none={clear[1]}")
@pytest.mark.parametrize("order", ORDERS)
def test_a_skipped_step_of_several_micro_batches_leaves_no_trace(order, clear):
    data = rows(12)
    smooth, rough = dense(), dense()
    reference, optimizer = NysAct(smooth, **SETTINGS), NysAct(rough, **SETTINGS)
    scaled_loop(reference, smooth, data, order, clear, accumulate=2)
    scaled_loop(optimizer, rough, data, order, clear, (0, 3), accumulate=2)
    assert_same(optimizer, reference)


def test_a_skipped_step_whose_gradients_the_model_sets_to_zero_leaves_no_trace():
    data = rows(9)
    smooth, rough = dense(), dense()
    reference, optimizer = NysAct(smooth, **SETTINGS), NysAct(rough, **SETTINGS)
    scaled_loop(reference, smooth, data, "zero after step", ("model", False))
    scaled_loop(optimizer, rough, data, "zero after step", ("model", False), (2, 4))
    assert_same(optimizer, reference)


@pytest.mark.parametrize("owner", ["optimizer", "model"])
def test_a_skipped_step_of_an_unfrozen_layer_leaves_no_trace(owner):
    optimizers = []
    for poisoned in ((), (0, 2)):
        model = dense()
        model[2].weight.requires_grad_(False)
        optimizer = NysAct(model, list(model.parameters()), **SETTINGS)
        train(model, optimizer, rows(3))
        model[2].weight.requires_grad_(True)
        train(model, optimizer, rows(1))
        scaled_loop(optimizer, model, rows(6), ORDERS[1], (owner, True), poisoned)
        optimizers.append(optimizer)
    assert_same(*optimizers)


def test_unscaling_and_clipping_before_the_step():
    data = rows(8)
    plain, scaled = dense(), dense()
    reference, optimizer = NysAct(plain, **SETTINGS), NysAct(scaled, **SETTINGS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for inputs, targets in data:
        for model, chosen, scale in ((plain, reference, None), (scaled, optimizer, scaler)):
            chosen.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            (scale.scale(loss) if scale else loss).backward()
            if scale:
                scale.unscale_(chosen)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            assert norm > 0.1
            scale.step(chosen) if scale else chosen.step()
        scaler.update()
    assert_same(optimizer, reference)


def test_a_preconditioner_under_a_scaler():
    data = rows(8)
    plain, scaled = dense(), dense()
    runs = [
        (model, Preconditioner(model, cov_interval=2, inv_interval=4), torch.optim.SGD)
        for model in (plain, scaled)
    ]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for (model, preconditioner, kind), scale in zip(runs, (None, scaler), strict=True):
        optimizer = kind(model.parameters(), lr=0.1)
        for inputs, targets in data:
            loss = F.cross_entropy(model(inputs), targets)
            (scale.scale(loss) if scale else loss).backward()
            if scale:
                scale.unscale_(optimizer)
            preconditioner.step()
            if scale:
                scale.step(optimizer)
                scale.update()
            else:
                optimizer.step()
            optimizer.zero_grad()
    assert_same(runs[1][1], runs[0][1])
