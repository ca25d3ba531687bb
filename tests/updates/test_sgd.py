"""The parameter update where nothing is preconditioned: SGD's, bit for bit."""

import pytest
import torch
from torch import nn

from ..oracles import error, randn
from ..steps import gradients, plain, same, set_gradients, two_layers, values

# The gradients here are set by hand, so that no layer has factors.
pytestmark = pytest.mark.filterwarnings("ignore:.*had gradients for two windows")
SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "weight-decay": {"weight_decay": 0.1},
    "momentum-weight-decay": {"momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "nesterov-weight-decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "maximize": {"momentum": 0.9, "maximize": True, "weight_decay": 0.1},
    "nesterov-maximize": {"momentum": 0.9, "nesterov": True, "maximize": True},
    "tensor-rate": {"lr": torch.tensor(0.3), "momentum": 0.9},
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
every_kernel = pytest.mark.parametrize(
    "kernel", [{}, {"foreach": True}, {"foreach": False}], ids=str
)


@every_setting
@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_without_preconditioner_get_the_update_of_sgd(settings, kernel, dtype):
    ours, theirs = two_layers(dtype=dtype), two_layers(dtype=dtype)
    options = {"lr": 0.1, **settings, **kernel}
    # Only the last layer is preconditioned, and that not before it has seen data.
    groups = [{"params": ours[:5].parameters(), "precondition": False}]
    optimizer = plain(ours, [*groups, {"params": ours[5].parameters()}], **options)
    reference = torch.optim.SGD(theirs.parameters(), **options)
    for step in range(5):
        for model, stepper in ((ours, optimizer), (theirs, reference)):
            set_gradients(model, step)
            if step == 2:
                model[1].weight.grad = None
            stepper.step()
        assert same(values(ours), values(theirs))


@every_setting
@every_kernel
@pytest.mark.parametrize("forwards", [False, True])
def test_gradients_are_left_as_they_were(settings, kernel, forwards):
    model = two_layers()
    optimizer = plain(model, **settings, **kernel)
    for step in range(3):
        if forwards:
            optimizer.zero_grad()
            model(randn(3, 2, 6, 6, seed=step)).square().sum().backward()
        else:
            set_gradients(model, step)
        before = gradients(model)
        optimizer.step()
        assert same(gradients(model), before)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("lr", [0.2, torch.tensor(0.2)], ids=["number", "tensor"])
def test_decoupled_weight_decay_shrinks_the_parameters_before_the_step(momentum, lr):
    model = two_layers()
    options = {"weight_decay": 0.5, "decoupled_weight_decay": True}
    optimizer = plain(model, lr=lr, momentum=momentum, **options)
    buffers = {name: 0.0 for name, _ in model.named_parameters()}
    for step in range(4):
        set_gradients(model, step)
        before, grads = values(model), gradients(model)
        optimizer.step()
        for name, value in values(model).items():
            buffers[name] = momentum * buffers[name] + grads[name]
            expected = before[name] * (1 - 0.2 * 0.5) - 0.2 * buffers[name]
            # A rate that is a tensor is one in float32.
            assert error(value, expected) < (1e-6 if isinstance(lr, torch.Tensor) else 1e-14)


def test_sparse_gradients_of_an_embedding_are_taken():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 2))
    optimizer = plain(model)
    before = values(model)
    model(torch.tensor([1, 4])).sum().backward()
    assert model[0].weight.grad.is_sparse
    expected = before["0.weight"] - 0.1 * model[0].weight.grad.to_dense()
    optimizer.step()
    assert error(model[0].weight.detach(), expected) < 1e-7


def test_each_parameter_keeps_the_rate_of_its_own_group():
    model = nn.Linear(4, 3).double()
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.7}]
    optimizer = plain(model, groups, damping=1e-3, rank=100)
    before = values(model)
    model(randn(9, 4)).square().sum().backward()
    joint = torch.cat([model.weight.grad, model.bias.grad[:, None]], dim=1)
    optimizer.step()
    moved = joint @ optimizer.inverse("")
    assert error(before["weight"] - model.weight.detach(), 0.1 * moved[:, :-1]) < 1e-13
    assert error(before["bias"] - model.bias.detach(), 0.7 * moved[:, -1]) < 1e-13
