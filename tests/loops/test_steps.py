"""What a loop does around a step: clipping, closures, resetting gradients, DataParallel."""

import pytest
import torch
import torch.nn.functional as F

from nysact import NysAct

from .training import SETTINGS, assert_same, dense, rows, train


@pytest.mark.parametrize("clip", ["norm", "value"])
def test_the_step_uses_the_gradients_as_clipped(clip):
    model, alone = dense(), dense()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    for inputs, targets in rows(9):
        for net, chosen in ((model, optimizer), (alone, reference)):
            chosen.zero_grad()
            F.cross_entropy(net(inputs), targets).backward()
        if clip == "norm":
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            factor = 0.1 / (norm + 1e-6)
            assert factor < 1
            for param in alone.parameters():
                param.grad = param.grad * factor
        else:
            torch.nn.utils.clip_grad_value_(model.parameters(), 0.01)
            for param in alone.parameters():
                param.grad = param.grad.clamp(-0.01, 0.01)
        optimizer.step()
        reference.step()
    assert_same(optimizer, reference)


@pytest.mark.parametrize("order", ["zero first", "zero before backward"])
def test_a_closure_does_what_the_lines_of_a_loop_do(order):
    model, alone = dense(), dense()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    losses = []
    for inputs, targets in rows(9):

        def closure(inputs=inputs, targets=targets):
            if order == "zero first":
                optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            if order == "zero before backward":
                optimizer.zero_grad()
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    assert losses == train(alone, reference, rows(9))
    assert_same(optimizer, reference)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("owner", ["model", "optimizer"])
def test_every_way_to_reset_gradients_gives_the_same_training(owner, set_to_none):
    model, alone = dense(), dense()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    for inputs, targets in rows(9):
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        {"model": model, "optimizer": optimizer}[owner].zero_grad(set_to_none=set_to_none)
    train(alone, reference, rows(9))
    assert_same(optimizer, reference)


def test_a_backward_for_another_models_loss_leaves_no_trace():
    """A discriminator's layers see the generator's step, whose gradients are then dropped."""
    data, other = rows(9), rows(9, seed=8)
    model, alone = dense(), dense()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    for (inputs, targets), (noise, _) in zip(data, other, strict=True):
        model(noise).sum().backward()
        train(model, optimizer, [(inputs, targets)])
        train(alone, reference, [(inputs, targets)])
    assert_same(optimizer, reference)


def test_a_graph_that_is_kept_for_a_second_backward():
    model, alone = dense(), dense()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    for inputs, targets in rows(9):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets) / 2
        loss.backward(retain_graph=True)
        loss.backward()
        optimizer.step()
        train(alone, reference, [(inputs, targets)])
    assert_same(optimizer, reference)


def test_data_parallel_put_around_the_model_later_is_refused_at_its_forward():
    model = dense()
    optimizer = NysAct(model)
    replica = model._replicate_for_data_parallel()
    for name, module in model.named_children():
        copy = module._replicate_for_data_parallel()
        copy.weight, copy.bias = getattr(module, "weight", None), getattr(module, "bias", None)
        setattr(replica, name, copy)
    with pytest.raises(TypeError, match=r"DistributedDataParallel \(DDP\)"):
        replica(rows(1)[0][0])
    assert not any(layer.pending.has_calls for layer in optimizer.layers.values())
