"""Networks, batches and training loops that run in one process or in several."""

import math

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from nysact import NysAct
from nysact.distributed import local

from ..oracles import randn

# Every sample counts, as one process takes every n-th of the whole batch.
SETTINGS = {"lr": 0.02, "rank": 3, "cov_interval": 2, "inv_interval": 4, "subsample": 1}


def network(dtype=torch.float64, seed=0):
    """Layers of every kind but transposed ones, with odd numbers of outputs."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(5, 5, 3, stride=2, bias=False),
        nn.Tanh(),
        nn.Conv2d(5, 5, 3, groups=5, padding=1),
        nn.Flatten(),
        nn.LayerNorm(45),
        nn.Linear(45, 7),
        nn.Tanh(),
        nn.Linear(7, 3),
    ).to(dtype)


def batch(step, samples=8, dtype=torch.float64):
    inputs = randn(samples, 1, 8, 8, seed=step, dtype=dtype)
    return inputs, randn(samples, 3, seed=step + 10_000, dtype=dtype)


def loss_of(outputs, targets, samples):
    """Each sample's part of the mean over ``samples``."""
    return (outputs - targets).square().sum() / samples


def my_share(tensors, sizes):
    """This process's part of a batch, of which each process has so many samples."""
    rank = dist.get_rank()
    return [tensor.split(sizes)[rank] for tensor in tensors]


def train(model, optimizer, steps, samples=8, sizes=None, dtype=torch.float64):
    """Train on whole batches, or on this process's part of each.

    The wrappers average gradients over processes, so each scales its loss to its samples.
    """
    for step in steps:
        inputs, targets = batch(step, samples, dtype)
        scale = 1
        if sizes is not None:
            inputs, targets = my_share((inputs, targets), sizes)
            scale = len(sizes)
        optimizer.zero_grad()
        (loss_of(model(inputs), targets, samples) * scale).backward()
        optimizer.step()


def wrap(model, how, **options):
    """Spread a model over all processes."""
    count = dist.get_world_size()
    if how == "ddp":
        return DistributedDataParallel(model, **options)
    shape = (count,) if how == "fsdp" else (2, count // 2)
    names = ("shard",) if how == "fsdp" else ("replicate", "shard")
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    fully_shard(model[4], mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def grid():
    """Two nodes of two processes: sums within a node first, and across nodes then."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("across", "within"))
    return mesh, [mesh.get_group("within"), mesh.get_group("across")]


def whole(tensor):
    """A tensor with all of its parts."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def learned(optimizer):
    """Parameters and state with all their parts, by name; to be called on all processes."""
    found = {}
    for group in optimizer.param_groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            found[name] = whole(param.detach()).clone()
            for key, value in optimizer.state[param].items():
                found[f"{name}.{key}"] = whole(value.detach()).clone()
    return found


def parts(optimizer):
    """What lies in this process of parameters and state, copied."""
    found = {}
    with torch.no_grad():
        for group in optimizer.param_groups:
            for name, param in zip(group["param_names"], group["params"], strict=True):
                found[name] = local(param).clone()
                for key, value in optimizer.state[param].items():
                    found[f"{name}.{key}"] = local(value).clone()
    return found


def trained(
    how, steps, *, build=NysAct, sizes=(4, 4), dtype=torch.float64, wrapping=None, **options
):
    """Train on this process's part of every batch."""
    model = wrap(network(dtype), how, **(wrapping or {}))
    optimizer = build(model, **{**SETTINGS, **options})
    train(model, optimizer, range(steps), sum(sizes), list(sizes), dtype)
    optimizer.consolidate()
    return model, optimizer


def run(how, steps, **options):
    """What the training of :func:`trained` has learned."""
    return learned(trained(how, steps, **options)[1])


def alone(steps, *, build=NysAct, samples=8, dtype=torch.float64, **options):
    """The same training in one process, on whole batches."""
    model = network(dtype)
    optimizer = build(model, **{**SETTINGS, **options})
    train(model, optimizer, range(steps), samples, dtype=dtype)
    return learned(optimizer)


def distance(actual, expected, names=None):
    """Largest relative difference of any tensor, in the Frobenius norm."""
    assert actual.keys() == expected.keys()
    errors = [0.0]
    for name in names or expected:
        mine, theirs = actual[name].double(), expected[name].double()
        assert mine.shape == theirs.shape, name
        scale = float(theirs.norm()) or 1.0
        errors.append(float((mine - theirs).norm()) / scale)
    assert not any(map(math.isnan, errors))
    return max(errors)


def same(left, right):
    """Whether all tensors are equal bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def through_checkpoint(path, saved, loaded):
    """Save a model and its optimizer with torch.distributed.checkpoint, and load both elsewhere."""
    weights, state = get_state_dict(*saved)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=path)
    weights, state = get_state_dict(*loaded)
    found = {"model": weights, "optimizer": state}
    dcp.load(found, checkpoint_id=path)
    set_state_dict(*loaded, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
