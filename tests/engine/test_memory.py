"""The size of the state, and that nothing large is ever made."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nysact.curvature import SKETCHES

from ..steps import plain, set_gradients

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)


def resnet110():
    """The convolutions and the classifier of a ResNet-110 for images of 32 x 32."""
    widths = [(3, 16), *[(16, 16)] * 36, (16, 32), *[(32, 32)] * 35, (32, 64), *[(64, 64)] * 35]
    convolutions = [nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in widths]
    return nn.ModuleList([*convolutions, nn.Linear(64, 10)])


@every_sketch
def test_the_state_of_a_resnet110_takes_at_most_4_mebibytes(sketch):
    model = resnet110()
    optimizer = plain(model, rank=10, sketch=sketch, momentum=0.9)
    set_gradients(model)
    optimizer.step()
    # Views of one storage count what they show; the storages hold nothing else.
    tensors = [
        tensor
        for state in optimizer.state.values()
        for name, tensor in state.items()
        if name != "momentum_buffer"
    ]
    shown = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert 2**20 < shown <= 4 * 2**20
    assert sum(storages.values()) <= 4 * 2**20


@every_sketch
@pytest.mark.parametrize("groups", [1, 2])
def test_a_layers_state_is_at_most_two_matrices_of_d_by_r(sketch, groups):
    module = nn.Conv2d(8, 4, 3, groups=groups)
    optimizer = plain(module, rank=5, sketch=sketch, momentum=0.9)
    module(torch.ones(2, 8, 5, 5)).sum().backward()
    optimizer.step()
    d = 8 // groups * 9 + 1
    state = optimizer.state[module.weight]
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    numels = sorted(v.numel() for name, v in state.items() if name != "momentum_buffer")
    assert numels[-2:] == [groups * d * 5] * 2
    assert all(size <= groups * 5 * 5 for size in numels[:-2])
    assert optimizer.state[module.bias].keys() <= {"momentum_buffer"}


class Largest(TorchDispatchMode):
    """Notes the sizes of all tensors that come into being."""

    def __init__(self):
        super().__init__()
        self.numels = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numels += [leaf.numel() for leaf in leaves]
        return result


@every_sketch
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_nothing_of_size_d_by_d_nor_unfolded_patches_is_made(sketch, padding_mode, groups):
    module = nn.Conv2d(64, 4, 3, padding=1, padding_mode=padding_mode, groups=groups)
    optimizer = plain(module, rank=10, sketch=sketch)
    inputs = torch.randn(4, 64, 8, 8)
    d, padded = 64 // groups * 9, 4 * 64 * 10 * 10
    patches = 4 * 8 * 8 * 64 * 9
    with Largest() as seen:
        for _ in range(2):
            module(inputs).sum().backward()
            optimizer.step()
    assert len(seen.numels) > 50
    assert max(seen.numels) <= padded < min(groups * d * d, patches) / 3


@every_sketch
def test_nothing_of_size_d_by_d_is_made_for_a_linear_layer(sketch):
    module = nn.Linear(500, 3)
    optimizer = plain(module, rank=10, sketch=sketch)
    with Largest() as seen:
        for _ in range(2):
            module(torch.ones(20, 500) + torch.randn(20, 500)).sum().backward()
            optimizer.step()
    assert max(seen.numels) <= 20 * 500
