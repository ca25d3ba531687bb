"""A preconditioner that is attached to the optimizer it serves."""

import pytest
import torch
import torch.nn.functional as F
from torch.optim import LBFGS, SGD, AdamW

from nysact import NysAct, Preconditioner
from nysact.integrations import attach, unwrap

from ..loops.training import assert_same, dense, rows, train
from .training import ENGINE, adamw


def test_a_step_of_the_optimizer_is_a_step_of_both():
    model, alone = dense(), dense()
    train(model, adamw(model), rows(9))
    preconditioner = Preconditioner(alone, **ENGINE)
    reference = AdamW(alone.parameters(), lr=0.01)
    for inputs, targets in rows(9):
        reference.zero_grad()
        F.cross_entropy(alone(inputs), targets).backward()
        preconditioner.step()
        reference.step()
    assert all(map(torch.equal, model.parameters(), alone.parameters()))


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_is_evaluated_first(by_name):
    model, alone = dense(), dense()
    optimizer = adamw(model)
    for inputs, targets in rows(5):

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
        assert loss.requires_grad
    train(alone, adamw(alone), rows(5))
    assert all(map(torch.equal, model.parameters(), alone.parameters()))


def test_one_state_dict_holds_both(tmp_path):
    straight, model, resumed = dense(), dense(), dense(seed=1)
    expected, optimizer = adamw(straight), adamw(model)
    train(straight, expected, rows(9))
    train(model, optimizer, rows(9)[:5])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s")
    found, saved = adamw(resumed), torch.load(tmp_path / "s", weights_only=True)
    resumed.load_state_dict(saved["model"])
    found.load_state_dict(saved["optimizer"])
    train(resumed, found, rows(9)[5:])
    assert_same(found, expected)
    assert_same(unwrap(found), unwrap(expected))


def test_a_state_without_that_of_the_preconditioner_is_refused():
    model = dense()
    saved = AdamW(model.parameters(), lr=0.01).state_dict()
    with pytest.raises(KeyError, match=r"saved before attach\(\).*torch.distributed.checkpoint"):
        adamw(model).load_state_dict(saved)


def test_mistakes_are_named():
    model = dense()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="is not an optimizer of nysact and has no preconditioner"):
        unwrap(optimizer)
    with pytest.raises(TypeError, match=r"a NysAct, expected a nysact\.Preconditioner"):
        attach(NysAct(model), optimizer)
    with pytest.raises(ValueError, match="NysAct preconditions its gradients already"):
        attach(Preconditioner(model), NysAct(model))
    attach(Preconditioner(model), optimizer)
    with pytest.raises(ValueError, match="SGD preconditions its gradients already"):
        attach(Preconditioner(model), optimizer)


def test_a_loss_scaler_skips_both():
    """A step whose gradients overflowed is a step of neither."""
    model = dense()
    optimizer = adamw(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for skipped in (False, True, False):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(rows(1)[0][0]), rows(1)[0][1])).backward()
        if skipped:
            model[0].weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
    assert unwrap(optimizer).param_groups[0]["step"] == 2
    assert optimizer.state[model[0].weight]["step"] == 2


def test_an_optimizer_that_evaluates_several_times_is_preconditioned_each_time():
    model = dense()
    optimizer = LBFGS(model.parameters(), lr=0.1, max_iter=3)
    attach(Preconditioner(model, **ENGINE), optimizer)
    (inputs, targets), losses = rows(1)[0], []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    assert len(losses) > 1
    assert unwrap(optimizer).param_groups[0]["step"] == len(losses)
