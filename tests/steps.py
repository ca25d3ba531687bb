"""Steps and snapshots that the tests of the optimizer share."""

import copy

import torch
from torch import nn

from nysact import NysAct

from .oracles import as_matrix, forward, n_groups, randn

# Nothing but the preconditioned gradient is in the update, and every sample counts.
PLAIN = {
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "subsample": 1,
    "cov_interval": 1,
    "inv_interval": 1,
}


def plain(model, params=None, **options):
    return NysAct(model, params, **{**PLAIN, **options})


def exact(module, **options):
    """An optimizer whose inverse tells the covariance that it was computed from."""
    return plain(module, rank=1000, damping=0.1, **options)


def backward(module, inputs, seed=0, **call):
    """One forward and one backward with a random gradient of the output."""
    outputs = forward(module, inputs, **call)
    outputs.backward(randn(*outputs.shape, seed=seed + 1000, dtype=outputs.dtype))


def set_gradients(model, seed=0):
    """Give every trainable parameter a random gradient, without any forward."""
    for index, param in enumerate(model.parameters()):
        if param.requires_grad:
            param.grad = randn(*param.shape, seed=100 * seed + index, dtype=param.dtype)


def values(model):
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def gradients(model):
    return {
        name: None if param.grad is None else param.grad.clone()
        for name, param in model.named_parameters()
    }


def same(left, right):
    """Whether two dictionaries of tensors are equal bit for bit."""
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        for name, value in left.items()
    )


def state_of(optimizer):
    """A copy of the whole state dict, flat."""
    saved = copy.deepcopy(optimizer.state_dict())
    flat = {
        f"{index}.{name}": value
        for index, state in saved["state"].items()
        for name, value in state.items()
    }
    return flat | {"groups": saved["param_groups"]}


def joint_gradient(module):
    """Gradient of weight and bias, ``(groups, out, d)``."""
    matrix = as_matrix(module, module.weight.grad)
    if module.bias is None:
        return matrix
    return torch.cat([matrix, module.bias.grad.reshape(*matrix.shape[:2], 1)], dim=-1)


def joint_value(module):
    """Weight and bias, ``(groups, out, d)``."""
    matrix = as_matrix(module, module.weight.detach())
    if module.bias is None:
        return matrix.clone()
    return torch.cat([matrix, module.bias.detach().reshape(*matrix.shape[:2], 1)], dim=-1)


def inverse_of(optimizer, module, name=""):
    """The dense preconditioner, always with the leading groups."""
    dense = optimizer.inverse(name)
    return dense.unsqueeze(0) if n_groups(module) == 1 else dense


def hooks_on(model):
    """Every hook that sits on a model, its modules and its parameters."""
    found = []
    for module in model.modules():
        found += dict(module._forward_pre_hooks.items()).values()
        found += dict(module._forward_hooks.items()).values()
        found += module._backward_hooks.values()
        found += module._backward_pre_hooks.values()
    for param in model.parameters():
        found += (param._post_accumulate_grad_hooks or {}).values()
        found += (param._backward_hooks or {}).values()
    return found


def two_layers(seed=0, dtype=torch.float64):
    """A convolution and a linear layer, with a norm between them that no adapter serves."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).to(dtype)


def images(seed=0, samples=5, dtype=torch.float64):
    return randn(samples, 2, 6, 6, seed=seed, dtype=dtype)
